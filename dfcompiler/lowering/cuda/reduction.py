"""Reductions on a GPU: a block for each result, or a thread where the innermost axis is kept."""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import add_row_map
from dfcompiler.lowering.cuda.normalization import KERNELS
from dfcompiler.lowering.cuda.threads import row_threads
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map, pointer
from dfcompiler.lowering.reduction import (
    Axes,
    accumulator_type,
    axes_of,
    loops_over,
    operation,
    positions,
    result_of,
)
from dfcompiler.lowering.symbolic import expression, product, symbol, text

HEADER = "cuda/reduction.h"


def lower_reduction(context: Context, op: Op) -> None:
    """Rows or columns, depending on whether the innermost axis is reduced or kept."""
    axes = axes_of(context, op)
    context.include(HEADER, KERNELS)
    if axes.innermost in axes.kept:
        add_map(context, context.new_state(op), _columns(context, op, axes))
        reason = "the innermost axis is kept: neighbouring threads read neighbouring elements"
        context.record(KernelRecord(op, "dace-map, one thread a result", reason))
        return
    _add_rows(context, op, axes)


def _add_rows(context: Context, op: Op, axes: Axes) -> None:
    """One block for each result; it folds runs of neighbouring elements."""
    (name,) = op.inputs
    outer, count = _runs(context, name, axes)
    loops, offset = loops_over(context, name, outer, axes.extents)
    code = [
        f"dfc::RowReduction<dfc::{operation(op)}, {accumulator_type(op)}> _total;",
        f"{loops}_total.add(_x + {offset}, {text(count)});",
        "const auto _value = _total.value();",
        f"if (threadIdx.x == 0) *_o = {result_of(op, axes, '_value')};",
    ]
    body = _body(context, op, axes, code)
    rows = product(extent for _, extent in body.ranges)
    threads = row_threads(context, count, rows, context.type(name).dtype.bytes)
    add_row_map(context, context.new_state(op), body, threads)
    reason = f"the innermost axis is reduced: one block of {threads} threads a result"
    context.record(KernelRecord(op, "dace-map + row folds", reason))


def _runs(context: Context, name: str, axes: Axes) -> tuple[list[int], Any]:
    """The reduced axes that are loops, and how many elements lie side by side inside of them."""
    outer = [a for a in axes.reduced if a != axes.innermost]
    count = axes.extents[axes.innermost] if axes.innermost >= 0 else 1
    while outer and text(context.stride(name, outer[-1])) == text(count):
        count = count * axes.extents[outer.pop()]
    return outer, count


def _columns(context: Context, op: Op, axes: Axes) -> MapBody:
    (name,) = op.inputs
    loops, offset = loops_over(context, name, axes.reduced, axes.extents)
    code = [
        f"dfc::ColumnReduction<dfc::{operation(op)}, {accumulator_type(op)}> _total;",
        f"{loops}_total.add(_x[{offset}]);",
        f"*_o = {result_of(op, axes, '_total.value()')};",
    ]
    return _body(context, op, axes, code)


def _body(context: Context, op: Op, axes: Axes, code: list[str]) -> MapBody:
    begin, position = positions(op, axes)
    return MapBody(
        label=op.kind,
        ranges=[(f"_i{a}", axes.extents[a]) for a in axes.kept],
        reads=[pointer(context, "_x", context.array(op.inputs[0]), begin, axes.reduced)],
        writes=[pointer(context, "_o", context.array(op.result), position, ())],
        code="\n".join(code),
        work=product(axes.extents),
    )


def lower_argmax(context: Context, op: Op) -> None:
    """One block for each result."""
    (name,) = op.inputs
    axis = normalize_axis(int(op.attr("axis")), context.type(name).rank)
    keep, stride = bool(op.attr("keepdims", False)), text(context.stride(name, axis))
    begin = _begin(context, name, axis)
    position = [i for a, i in enumerate(begin) if a != axis or keep]
    count = text(expression(context.type(name).shape[axis]))
    code = (
        f"const auto _position = dfc::argmax_row(_x, {stride}, {count});\n"
        "if (threadIdx.x == 0) *_o = _position;"
    )
    _lower_axis(context, op, axis, position or [0], (), code, "greatest value and its position")


def lower_cumsum(context: Context, op: Op) -> None:
    """One block for each row."""
    (name,) = op.inputs
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    strides = [text(context.stride(n, axis)) for n in (op.result, name)]
    count = text(expression(op.type.shape[axis]))
    code = f"dfc::cumsum_row(_o, {strides[0]}, _x, {strides[1]}, {count});"
    begin = _begin(context, name, axis)
    _lower_axis(context, op, axis, begin, (axis,), code, "a scan of tiles, in order")


def _begin(context: Context, name: str, axis: int) -> list[Any]:
    """The first element of a row along `axis`."""
    shape = context.type(name).shape
    return [0 if a == axis or is_one(dim) else symbol(f"_i{a}") for a, dim in enumerate(shape)]


def _lower_axis(
    context: Context,
    op: Op,
    axis: int,
    position: list[Any],
    walked: tuple[int, ...],
    code: str,
    reason: str,
) -> None:
    """One block for each row of the operand along `axis`, which writes from `position` on."""
    (name,) = op.inputs
    source = context.type(name)
    extents = [expression(dim) for dim in source.shape]
    kept = [a for a in range(source.rank) if a != axis and not is_one(source.shape[a])]
    context.include(HEADER, KERNELS)
    begin = _begin(context, name, axis)
    body = MapBody(
        label=op.kind,
        ranges=[(f"_i{a}", extents[a]) for a in kept],
        reads=[pointer(context, "_x", context.array(name), begin, (axis,))],
        writes=[pointer(context, "_o", context.array(op.result), position, walked)],
        code=code,
        work=product(extents) * 4,
    )
    rows = product(extents[a] for a in kept)
    threads = row_threads(context, extents[axis], rows, source.dtype.bytes)
    add_row_map(context, context.new_state(op), body, threads)
    context.record(KernelRecord(op, "dace-map + row function", f"{reason}; {threads} threads"))
