"""Reductions: a map over the kept axes whose tasklet loops over the reduced ones.

When the innermost axis is reduced, the tasklet folds rows in vector registers. When it is kept, one
tasklet reduces a block of columns side by side, so that memory is read in rows either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.operators.normalization import reduced_axes
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer
from dfcompiler.lowering.scalars import compute_type, stored_type
from dfcompiler.lowering.symbolic import (
    ceil_div,
    expression,
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
    """The axes of a reduction of extent other than 1: extents, and indices by map parameters."""

    extents: list[Any]
    kept: list[int]
    reduced: list[int]
    innermost: int


def axes_of(context: Context, op: Op) -> Axes:
    """The axes of a reduction's operand, in the order in which they lie in memory."""
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
    shape = axes_of(context, op)
    context.include(HEADER)
    columns = shape.innermost in shape.kept
    body = _columns(context, op, shape) if columns else _rows(context, op, shape)
    add_map(context, context.new_state(op), body)
    how = "column blocks" if columns else "row folds"
    reason = "the innermost axis is " + ("kept" if columns else "reduced")
    context.record(KernelRecord(op, f"dace-map + {how}", reason))


def _rows(context: Context, op: Op, shape: Axes) -> MapBody:
    (name,) = op.inputs
    inner = shape.innermost
    loops, offset = loops_over(
        context, name, [a for a in shape.reduced if a != inner], shape.extents
    )
    count = text(shape.extents[inner]) if inner >= 0 else "1"
    accumulator = accumulator_type(op)
    code = [
        f"dfc::RowReduction<dfc::{operation(op)}, {accumulator}> total;",
        f"{loops}total.add(_x + {offset}, {count});",
        f"_o = {result_of(op, shape, 'total.value()')};",
    ]
    begin, position = positions(op, shape)
    return MapBody(
        label=op.kind,
        ranges=[(f"_i{a}", shape.extents[a]) for a in shape.kept],
        reads=[pointer(context, "_x", context.array(name), begin, shape.reduced)],
        writes=[Access("_o", context.array(op.result), unit_range(*position))],
        code="\n".join(code),
        work=product(shape.extents),
    )


def _columns(context: Context, op: Op, shape: Axes) -> MapBody:
    (name,) = op.inputs
    inner = shape.innermost
    accumulator = accumulator_type(op)
    block = 4 * context.cpu.vector_bytes // _BYTES[accumulator]
    extent = shape.extents[inner]
    loops, offset = loops_over(context, name, shape.reduced, shape.extents)
    begin, position = positions(op, shape)
    width = f"std::min<int64_t>({block}, {text(extent)} - {text(begin[inner] * block)})"
    begin[inner] = begin[inner] * block
    out_axis = result_axes(op, context.type(name).rank)[inner]
    position[out_axis] = position[out_axis] * block
    stride = text(context.stride(op.result, out_axis))
    code = [
        f"dfc::ColumnReduction<dfc::{operation(op)}, {accumulator}> total;",
        f"const int width = int({width});",
        f"{loops}total.add(_x + {offset}, width);",
        "for (int j = 0; j < width; ++j) "
        f"_o[j * {stride}] = {result_of(op, shape, 'total.value(j)')};",
    ]
    ranges = [
        (f"_i{a}", ceil_div(shape.extents[a], block) if a == inner else shape.extents[a])
        for a in shape.kept
    ]
    return MapBody(
        label=op.kind,
        ranges=ranges,
        reads=[
            pointer(context, "_x", context.array(name), begin, (*shape.reduced, inner)),
        ],
        writes=[pointer(context, "_o", context.array(op.result), position, (out_axis,))],
        code="\n".join(code),
        work=product(shape.extents),
    )


def loops_over(context: Context, name: str, axes: list[int], extents: list[Any]) -> tuple[str, str]:
    """C++ loops over reduced axes, and the offset of their elements."""
    heads = "".join(f"for (int64_t _r{a} = 0; _r{a} < {text(extents[a])}; ++_r{a}) " for a in axes)
    terms = [f"_r{a} * ({text(context.stride(name, a))})" for a in axes]
    return heads, " + ".join(terms) or "0"


def positions(op: Op, shape: Axes) -> tuple[list[Any], list[Any]]:
    """The first element of the input and the element of the result of a map iteration."""
    rank = len(shape.extents)
    begin = [symbol(f"_i{a}") if a in shape.kept else 0 for a in range(rank)]
    axes = result_axes(op, rank)
    position: list[Any] = [0] * max(op.type.rank, 1)
    for a in shape.kept:
        position[axes[a]] = begin[a]
    return begin or [0], position


def result_axes(op: Op, rank: int) -> dict[int, int]:
    """The axis of the result for each kept axis of the input."""
    axes = reduced_axes(op, rank)
    kept = [a for a in range(rank) if a not in axes]
    if op.attr("keepdims", False):
        return {a: a for a in kept}
    return {a: i for i, a in enumerate(kept)}


def operation(op: Op) -> str:
    """The combining operation, as the kernels call it."""
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


def result_of(op: Op, shape: Axes, value: str) -> str:
    """C++ of the element that is stored for a reduced value."""
    if op.kind == "reduce_mean":
        count = text(product(shape.extents[a] for a in shape.reduced))
        value = f"{value} / {accumulator_type(op)}({count})"
    return f"{stored_type(op.type.dtype)}({value})"


def lower_argmax(context: Context, op: Op) -> None:
    """One row function for each result."""
    (name,) = op.inputs
    source = context.type(name)
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    kept = [a for a in range(source.rank) if a != axis and not is_one(source.shape[a])]
    extents = [expression(dim) for dim in source.shape]
    begin = [symbol(f"_i{a}") if a in kept else 0 for a in range(source.rank)]
    keep, stride = bool(op.attr("keepdims", False)), text(context.stride(name, axis))
    position = [i for a, i in enumerate(begin) if a != axis or keep]
    context.include(HEADER)
    body = MapBody(
        label="argmax",
        ranges=[(f"_i{a}", extents[a]) for a in kept],
        reads=[pointer(context, "_x", context.array(name), begin, (axis,))],
        writes=[Access("_o", context.array(op.result), unit_range(*(position or [0])))],
        code=f"_o = dfc::argmax_row(_x, {stride}, {text(extents[axis])});",
        work=product(extents) * 2,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row function", "greatest value, then its position"))


def lower_cumsum(context: Context, op: Op) -> None:
    """One row at a time, in order."""
    (name,) = op.inputs
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    extents = [expression(dim) for dim in op.type.shape]
    kept = [a for a in range(op.type.rank) if a != axis and not is_one(op.type.shape[a])]
    begin = [symbol(f"_i{a}") if a in kept else 0 for a in range(op.type.rank)]
    strides = [text(context.stride(n, axis)) for n in (op.result, name)]
    context.include(HEADER)
    body = MapBody(
        label="cumsum",
        ranges=[(f"_i{a}", extents[a]) for a in kept],
        reads=[pointer(context, "_x", context.array(name), begin, (axis,))],
        writes=[pointer(context, "_o", context.array(op.result), begin, (axis,))],
        code=f"dfc::cumsum_row(_o, {strides[0]}, _x, {strides[1]}, {text(extents[axis])});",
        work=product(extents) * 4,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row function", "a running sum is serial"))
