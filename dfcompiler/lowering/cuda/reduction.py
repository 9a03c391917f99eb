"""Reductions on a GPU: a block for each result, or a thread where the innermost axis is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.row_maps import KERNELS, add_rows
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map
from dfcompiler.lowering.reduction import (
    Axes,
    accumulator_type,
    argmax_body,
    argmax_call,
    axes_of,
    cumsum_body,
    for_loops,
    operation,
    reduction_body,
    result_of,
)
from dfcompiler.lowering.symbolic import expression, text

HEADER = "cuda/reduction.h"


def lower_reduction(context: Context, op: Op) -> None:
    """Rows or columns, depending on whether the innermost axis is reduced or kept."""
    axes = axes_of(context, op)
    context.include(HEADER, KERNELS)
    if axes.innermost not in axes.kept:
        _lower_rows(context, op, axes)
        return
    loops, offset = for_loops(context, op.inputs[0], axes.reduced, axes)
    code = [
        f"dfc::ColumnReduction<dfc::{operation(op)}, {accumulator_type(op)}> _total;",
        f"{loops}_total.add(_x[{offset}]);",
        f"*_o = {result_of(op, axes, '_total.value()')};",
    ]
    body = _through_pointer(reduction_body(context, op, axes, code))
    add_map(context, context.new_state(op), body)
    reason = "the innermost axis is kept: neighbouring threads read neighbouring elements"
    context.record(KernelRecord(op, "dace-map, one thread a result", reason))


def _lower_rows(context: Context, op: Op, axes: Axes) -> None:
    """One block for each result; it folds runs of neighbouring elements."""
    (name,) = op.inputs
    outer, count = _runs(context, name, axes)
    loops, offset = for_loops(context, name, outer, axes)
    code = [
        f"dfc::RowReduction<dfc::{operation(op)}, {accumulator_type(op)}> _total;",
        f"{loops}_total.add(_x + {offset}, {text(count)});",
        "const auto _value = _total.value();",
        f"if (threadIdx.x == 0) *_o = {result_of(op, axes, '_value')};",
    ]
    body = _through_pointer(reduction_body(context, op, axes, code))
    threads = add_rows(context, op, body, count, context.type(name).dtype)
    reason = f"the innermost axis is reduced: one block of {threads} threads a result"
    context.record(KernelRecord(op, "dace-map + row folds", reason))


def _runs(context: Context, name: str, axes: Axes) -> tuple[Sequence[int], Any]:
    """The reduced axes that are loops, and how many elements lie side by side inside of them."""
    outer = [a for a in axes.reduced if a != axes.innermost]
    count = axes.extents[axes.innermost] if axes.innermost >= 0 else 1
    while outer and text(context.stride(name, outer[-1])) == text(count):
        count = count * axes.extents[outer.pop()]
    return outer, count


def _through_pointer(body: MapBody) -> MapBody:
    """The body whose code writes ``*_o``, so that not every thread of a block has to."""
    return replace(body, writes=[replace(write, pointer=True) for write in body.writes])


def lower_argmax(context: Context, op: Op) -> None:
    """One block for each result."""
    code = (
        f"const auto _position = {argmax_call(context, op)};\n"
        "if (threadIdx.x == 0) *_o = _position;"
    )
    body = _through_pointer(argmax_body(context, op, code))
    _lower_axis(context, op, body, "greatest value and its position")


def lower_cumsum(context: Context, op: Op) -> None:
    """One block for each row."""
    _lower_axis(context, op, cumsum_body(context, op), "a scan of tiles, in order")


def _lower_axis(context: Context, op: Op, body: MapBody, reason: str) -> None:
    """One block for each row of the operand along the operator's axis."""
    context.include(HEADER, KERNELS)
    source = context.type(op.inputs[0])
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    length = expression(source.shape[axis])
    threads = add_rows(context, op, body, length, source.dtype)
    context.record(KernelRecord(op, "dace-map + row function", f"{reason}; {threads} threads"))
