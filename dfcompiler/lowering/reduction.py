"""Reductions: a map over the kept axes whose tasklet loops over the reduced ones.

When the innermost axis is reduced, the tasklet folds rows in vector registers. When it is kept, one
tasklet reduces a block of columns side by side, so that memory is read in rows either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.operators.normalization import reduced_axes
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.loops import loops_over, parameter
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer
from dfcompiler.lowering.row_maps import row_body
from dfcompiler.lowering.scalars import compute_type, stored_type
from dfcompiler.lowering.symbolic import (
    ceil_div,
    element_count,
    expression,
    is_one,
    product,
    symbol,
    text,
    unit_range,
)

HEADER = "cpu/reduction.h"
_OPERATIONS = {
    "reduce_sum": "Sum",
    "reduce_mean": "Sum",
    "reduce_max": "Maximum",
    "reduce_min": "Minimum",
    "reduce_prod": "Product",
}
# Sums and products of truth values are disjunctions and conjunctions, as numpy casts them back.
_BOOLEAN = {
    "reduce_sum": "Maximum",
    "reduce_max": "Maximum",
    "reduce_prod": "Minimum",
    "reduce_min": "Minimum",
}
_BYTES = {stored_type(dtype): dtype.bytes for dtype in DType}
REDUCTIONS = tuple(_OPERATIONS)


@dataclass(frozen=True)
class Axes:
    """The axes of a reduction's operand, in the order in which they lie in memory.

    Attributes:
        extents: of all its axes.
        kept: those of extent other than 1 that the result has too.
        reduced: those of extent other than 1 that it has not.
        innermost: the last one of extent other than 1; -1 if there is none.
    """

    extents: list[Any]
    kept: list[int]
    reduced: list[int]
    innermost: int


def axes_of(context: Context, op: Op) -> Axes:
    """The axes of a reduction."""
    (name,) = op.inputs
    source = context.type(name)
    reduced = set(reduced_axes(op, source.rank))
    order = [a for a in source.layout.permutation(source.rank) if not is_one(source.shape[a])]
    return Axes(
        [expression(dim) for dim in source.shape],
        [a for a in order if a not in reduced],
        [a for a in order if a in reduced],
        order[-1] if order else -1,
    )


def lower_reduction(context: Context, op: Op) -> None:
    """Rows or columns, depending on whether the innermost axis is reduced or kept."""
    axes = axes_of(context, op)
    context.include(HEADER)
    columns = axes.innermost in axes.kept
    body = _columns(context, op, axes) if columns else _rows(context, op, axes)
    add_map(context, context.new_state(op), body)
    how = "column blocks" if columns else "row folds"
    reason = "the innermost axis is " + ("kept" if columns else "reduced")
    context.record(KernelRecord(op, f"dace-map + {how}", reason))


def _rows(context: Context, op: Op, axes: Axes) -> MapBody:
    (name,) = op.inputs
    inner = axes.innermost
    loops, offset = for_loops(context, name, [a for a in axes.reduced if a != inner], axes)
    count = text(axes.extents[inner]) if inner >= 0 else "1"
    code = [
        f"dfc::RowReduction<dfc::{operation(op)}, {accumulator_type(op)}> total;",
        f"{loops}total.add(_x + {offset}, {count});",
        f"_o = {result_of(op, axes, 'total.value()')};",
    ]
    return reduction_body(context, op, axes, code)


def reduction_body(context: Context, op: Op, axes: Axes, code: Sequence[str]) -> MapBody:
    """A map over the results of a reduction.

    Args:
        context: where to.
        op: the reduction.
        axes: its axes.
        code: lines of C++ that give ``_o`` the result, from the first element ``*_x``.
    """
    (name,) = op.inputs
    begin, position = positions(op, axes)
    return MapBody(
        label=op.kind,
        ranges=[(parameter(a), axes.extents[a]) for a in axes.kept],
        reads=[pointer(context, "_x", context.array(name), begin, axes.reduced)],
        writes=[Access("_o", context.array(op.result), unit_range(*position))],
        code="\n".join(code),
        work=product(axes.extents),
    )


def _columns(context: Context, op: Op, axes: Axes) -> MapBody:
    (name,) = op.inputs
    inner = axes.innermost
    accumulator = accumulator_type(op)
    block = 4 * context.cpu.vector_bytes // _BYTES[accumulator]
    loops, offset = for_loops(context, name, axes.reduced, axes)
    begin, position = positions(op, axes)
    out_axis = result_axes(op, context.type(name).rank)[inner]
    begin[inner] = begin[inner] * block
    position[out_axis] = position[out_axis] * block
    width = f"std::min<int64_t>({block}, {text(axes.extents[inner])} - {text(begin[inner])})"
    stride = text(context.stride(op.result, out_axis))
    code = [
        f"dfc::ColumnReduction<dfc::{operation(op)}, {accumulator}> total;",
        f"const int width = int({width});",
        f"{loops}total.add(_x + {offset}, width);",
        "for (int j = 0; j < width; ++j) "
        f"_o[j * {stride}] = {result_of(op, axes, 'total.value(j)')};",
    ]
    blocks = {inner: ceil_div(axes.extents[inner], block)}
    walked = (*axes.reduced, inner)
    return MapBody(
        label=op.kind,
        ranges=[(parameter(a), blocks.get(a, axes.extents[a])) for a in axes.kept],
        reads=[pointer(context, "_x", context.array(name), begin, walked)],
        writes=[pointer(context, "_o", context.array(op.result), position, (out_axis,))],
        code="\n".join(code),
        work=product(axes.extents),
    )


def for_loops(context: Context, name: str, walked: Sequence[int], axes: Axes) -> tuple[str, str]:
    """C++ loops over the axes `walked` of the operand, and the offset of their elements."""
    ends = [(a, text(axes.extents[a])) for a in walked]
    heads = "".join(f"for (int64_t _r{a} = 0; _r{a} < {end}; ++_r{a}) " for a, end in ends)
    terms = [f"_r{a} * ({text(context.stride(name, a))})" for a in walked]
    return heads, " + ".join(terms) or "0"


def positions(op: Op, axes: Axes) -> tuple[list[Any], list[Any]]:
    """The first element of the input and the element of the result of a map iteration."""
    rank = len(axes.extents)
    begin = [symbol(parameter(a)) if a in axes.kept else 0 for a in range(rank)]
    place = result_axes(op, rank)
    position: list[Any] = [0] * op.type.rank
    for a in axes.kept:
        position[place[a]] = begin[a]
    return begin, position


def result_axes(op: Op, rank: int) -> dict[int, int]:
    """The axis of the result for each kept axis of the input."""
    axes = reduced_axes(op, rank)
    kept = [a for a in range(rank) if a not in axes]
    if op.attr("keepdims", False):
        return {a: a for a in kept}
    return {a: i for i, a in enumerate(kept)}


def operation(op: Op) -> str:
    """The combining operation, as the kernels call it.

    Raises:
        UnsupportedError: if it has no meaning for truth values.
    """
    if op.type.dtype is not DType.BOOL:
        return _OPERATIONS[op.kind]
    if op.kind not in _BOOLEAN:
        raise UnsupportedError(f"{op.kind} of bool values has no meaning", (op.result, op.source))
    return _BOOLEAN[op.kind]


def accumulator_type(op: Op) -> str:
    """The C++ type of sums."""
    dtype = op.type.dtype
    if dtype is DType.BOOL:
        return "uint8_t"
    if op.kind == "reduce_mean" and not dtype.is_float:
        return "double"
    return compute_type(dtype)


def result_of(op: Op, axes: Axes, value: str) -> str:
    """C++ of the element that is stored for a reduced value."""
    if op.kind == "reduce_mean":
        count = text(product(axes.extents[a] for a in axes.reduced))
        value = f"{value} / {accumulator_type(op)}({count})"
    return f"{stored_type(op.type.dtype)}({value})"


def lower_argmax(context: Context, op: Op) -> None:
    """One row function for each result."""
    context.include(HEADER)
    body = argmax_body(context, op, f"_o = {argmax_call(context, op)};")
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row function", "greatest value, then its position"))


def argmax_call(context: Context, op: Op) -> str:
    """C++ of the position of the greatest element of the row behind ``_x``."""
    (name,) = op.inputs
    axis = normalize_axis(int(op.attr("axis")), context.type(name).rank)
    length = text(expression(context.type(name).shape[axis]))
    return f"dfc::argmax_row(_x, {text(context.stride(name, axis))}, {length})"


def argmax_body(context: Context, op: Op, code: str) -> MapBody:
    """A map over the rows of the operand; `code` gives ``_o`` the position in one."""
    (name,) = op.inputs
    source = context.type(name)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    rows = loops_over(source, [a for a in range(source.rank) if a != axis])
    keep = bool(op.attr("keepdims", False))
    position = [i for a, i in enumerate(rows.index) if a != axis or keep]
    return MapBody(
        label=op.kind,
        ranges=rows.ranges,
        reads=[pointer(context, "_x", context.array(name), rows.index, (axis,))],
        writes=[Access("_o", context.array(op.result), unit_range(*position))],
        code=code,
        work=element_count(source.shape) * 2,
    )


def lower_cumsum(context: Context, op: Op) -> None:
    """One row at a time, in order."""
    context.include(HEADER)
    add_map(context, context.new_state(op), cumsum_body(context, op))
    context.record(KernelRecord(op, "dace-map + row function", "a running sum is serial"))


def cumsum_body(context: Context, op: Op) -> MapBody:
    """The row functions of a running sum."""
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    to, source = (text(context.stride(name, axis)) for name in (op.result, *op.inputs))
    length = text(expression(op.type.shape[axis]))
    return row_body(context, op, axis, f"dfc::cumsum_row(_o, {to}, _x, {source}, {length});", 4)
