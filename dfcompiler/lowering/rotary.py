"""Rotary position embedding: pairs of elements of a row are rotated by their angles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.loops import loops_over
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer
from dfcompiler.lowering.symbolic import element_count, expression, is_one, text


def lower_rotary(context: Context, op: Op) -> None:
    """A map over rows; the tasklet rotates the pairs of one row."""
    context.include("cpu/rotary.h")
    add_map(context, context.new_state(op), rotary_body(context, op))
    context.record(KernelRecord(op, "dace-map + row function", f"pairs are {pairs_of(op)}"))


def rotary_body(context: Context, op: Op, *parts: tuple[str, Any]) -> MapBody:
    """The rows of a rotary embedding, and inside of them ranges over the parts of a row.

    Args:
        context: where to.
        op: the operator.
        parts: parameters, which the function that rotates takes last, with their extents.
    """
    last = op.type.rank - 1
    rows = loops_over(op.type, range(last))
    reads = [
        _row_of(context, connector, name, rows.index)
        for connector, name in zip(("_x", "_cos", "_sin"), op.inputs, strict=True)
    ]
    arguments = ["_o", "_x", "_cos", "_sin", text(half_of(context, op)), *(p for p, _ in parts)]
    return MapBody(
        label="rotary",
        ranges=[*rows.ranges, *parts],
        reads=reads,
        writes=[pointer(context, "_o", context.array(op.result), rows.index, (last,))],
        code=f"dfc::rotary_{pairs_of(op)}({', '.join(arguments)});",
        work=element_count(op.type.shape) * 3,
    )


def pairs_of(op: Op) -> str:
    """How the pairs of a row lie: ``interleaved``, or one element in each of its ``halves``."""
    return "interleaved" if op.attr("interleaved", False) else "halves"


def half_of(context: Context, op: Op) -> Any:
    """How many pairs a row has."""
    return expression(context.type(op.inputs[1]).shape[-1])


def _row_of(context: Context, connector: str, name: str, begin: Sequence[Any]) -> Access:
    """A pointer to the row of `name` that broadcasts to the row at `begin`."""
    shape = context.type(name).shape
    tail = begin[len(begin) - len(shape) :]
    index = [0 if is_one(dim) else i for dim, i in zip(shape, tail, strict=True)]
    return pointer(context, connector, context.array(name), index, (len(shape) - 1,))
