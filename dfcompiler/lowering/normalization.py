"""Softmax, layer norm and RMS norm: a map over rows whose tasklet calls a row function.

The row functions of ``kernels/cpu/normalization.h`` keep a row in cache between their passes; why
they are C++ and not nested maps is in ``docs/decisions/0010-row-functions.md``.
"""

from __future__ import annotations

from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.scalars import literal, stored_type
from dfcompiler.lowering.symbolic import expression, product, symbol, text

HEADER = "cpu/normalization.h"
# Work of one element in units of an addition, for choosing threads.
SOFTMAX_WORK, NORM_WORK = 16, 6


def lower_softmax(context: Context, op: Op) -> None:
    """One row function for each row; a strided one when the axis is not contiguous."""
    (name,) = op.inputs
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    strides = [text(context.stride(n, axis)) for n in (op.result, name)]
    count = text(expression(op.type.shape[axis]))
    if strides == ["1", "1"]:
        code, reason = f"dfc::softmax_row(_o, _x, {count});", "the axis is contiguous"
    else:
        code = f"dfc::softmax_strided(_o, {strides[0]}, _x, {strides[1]}, {count});"
        reason = "the axis is strided"
    _lower_rows(context, op, axis, code, [], SOFTMAX_WORK, reason)


def lower_norm(context: Context, op: Op) -> None:
    """One row function of layer or RMS norm for each row of the last axis."""
    axis = op.type.rank - 1
    if any(text(context.stride(name, axis)) != "1" for name in (op.result, op.inputs[0])):
        raise UnsupportedError(
            f"{op.kind} needs its last axis contiguous, found {op.type}", (op.result, op.source)
        )
    context.include(HEADER)
    code, parameters = norm_call(context, op, "_x")
    _lower_rows(context, op, axis, code, parameters, NORM_WORK, "two-pass statistics of a row")


def norm_call(context: Context, op: Op, row: str) -> tuple[str, list[Access]]:
    """The call of a row function that normalizes `row` to ``_o``, and the parameters it reads."""
    connectors = {"layer_norm": ["_gamma", "_beta"], "rms_norm": ["_gamma"]}[op.kind]
    null = f"static_cast<const {stored_type(op.type.dtype)}*>(nullptr)"
    names = op.inputs[1:]
    given = [c if i < len(names) else null for i, c in enumerate(connectors)]
    count = text(expression(op.type.shape[-1]))
    epsilon = literal(op.attr("epsilon"), op.type.dtype)
    parameters = [
        whole(context, connector, context.array(name))
        for connector, name in zip(connectors, names, strict=False)
    ]
    return f"dfc::{op.kind}_row(_o, {row}, {', '.join(given)}, {count}, {epsilon});", parameters


def _lower_rows(
    context: Context,
    op: Op,
    axis: int,
    code: str,
    parameters: list[Access],
    work: int,
    reason: str,
) -> None:
    """A parallel map over all axes but one, with a tasklet on pointers to the row."""
    rank, name = op.type.rank, op.inputs[0]
    extents = [expression(dim) for dim in op.type.shape]
    kept = [a for a in op.type.layout.permutation(rank) if a != axis]
    kept = [a for a in kept if not is_one(op.type.shape[a])]
    begin: list[Any] = [symbol(f"_i{a}") if a in kept else 0 for a in range(rank)]
    context.include(HEADER)
    body = MapBody(
        label=op.kind,
        ranges=[(f"_i{a}", extents[a]) for a in kept],
        reads=[pointer(context, "_x", context.array(name), begin, (axis,)), *parameters],
        writes=[pointer(context, "_o", context.array(op.result), begin, (axis,))],
        code=code,
        work=product(extents) * work,
    )
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row function", reason))
