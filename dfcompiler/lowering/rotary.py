"""Rotary position embedding: pairs of elements of a row are rotated by their angles."""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer
from dfcompiler.lowering.symbolic import expression, product, symbol, text


def lower_rotary(context: Context, op: Op) -> None:
    """A map over rows; the tasklet rotates the pairs of one row."""
    rank, last = op.type.rank, op.type.rank - 1
    extents = [expression(dim) for dim in op.type.shape]
    kept = [a for a in range(last) if not is_one(op.type.shape[a])]
    begin: list[Any] = [symbol(f"_i{a}") if a in kept else 0 for a in range(rank)]
    reads = [
        angles(context, connector, name, begin)
        for connector, name in zip(("_x", "_cos", "_sin"), op.inputs, strict=True)
    ]
    pairs = "interleaved" if op.attr("interleaved", False) else "halves"
    half = text(expression(context.type(op.inputs[1]).shape[-1]))
    context.include("cpu/rotary.h")
    body = MapBody(
        label="rotary",
        ranges=[(f"_i{a}", extents[a]) for a in kept],
        reads=reads,
        writes=[pointer(context, "_o", context.array(op.result), begin, (last,))],
        code=f"dfc::rotary_{pairs}(_o, _x, _cos, _sin, {half});",
        work=product(extents) * 3,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row function", f"pairs are {pairs}"))


def angles(context: Context, connector: str, name: str, begin: list[Any]) -> Access:
    """A pointer to the row of `name` that broadcasts to the row at `begin`."""
    shape = context.type(name).shape
    tail = begin[len(begin) - len(shape) :]
    index = [0 if is_one(dim) else i for dim, i in zip(shape, tail, strict=True)]
    return pointer(context, connector, context.array(name), index, (len(shape) - 1,))
