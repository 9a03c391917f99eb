"""Softmax, layer norm and RMS norm: a map over rows whose tasklet calls a row function.

The row functions of ``kernels/cpu/normalization.h`` keep a row in cache between their passes; why
they are C++ and not nested maps is in ``docs/decisions/0010-row-functions.md``.
"""

from __future__ import annotations

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, whole
from dfcompiler.lowering.row_maps import row_body
from dfcompiler.lowering.scalars import literal, stored_type
from dfcompiler.lowering.symbolic import expression, text

HEADER = "cpu/normalization.h"
# Work of one element in units of an addition, for choosing threads.
SOFTMAX_WORK, NORM_WORK = 16, 6


def lower_softmax(context: Context, op: Op) -> None:
    """One row function for each row; a strided one when the axis is not contiguous."""
    body, contiguous = softmax_body(context, op)
    _add_rows(context, op, body, f"the axis is {'contiguous' if contiguous else 'strided'}")


def lower_norm(context: Context, op: Op) -> None:
    """One row function of layer or RMS norm for each row of the last axis.

    Raises:
        UnsupportedError: if the last axis is not contiguous.
    """
    _add_rows(context, op, norm_body(context, op), "two-pass statistics of a row")


def _add_rows(context: Context, op: Op, body: MapBody, reason: str) -> None:
    context.include(HEADER)
    add_map(context, context.new_state(op), body)
    context.record(KernelRecord(op, "dace-map + row function", reason))


def softmax_body(context: Context, op: Op, row: str = "_x") -> tuple[MapBody, bool]:
    """The row functions of a softmax, and whether they take its axis to be contiguous.

    `row` is C++ of a contiguous row, which `_x` points to.
    """
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    to, source = (text(context.stride(name, axis)) for name in (op.result, *op.inputs))
    length = text(expression(op.type.shape[axis]))
    contiguous = to == source == "1"
    code = f"dfc::softmax_strided(_o, {to}, _x, {source}, {length});"
    if contiguous:
        code = f"dfc::softmax_row(_o, {row}, {length});"
    return row_body(context, op, axis, code, SOFTMAX_WORK), contiguous


def norm_body(context: Context, op: Op, row: str = "_x") -> MapBody:
    """The row functions of a layer or RMS norm; `row` is C++ of a row, which `_x` points to.

    Raises:
        UnsupportedError: if the last axis is not contiguous.
    """
    axis = op.type.rank - 1
    if any(text(context.stride(name, axis)) != "1" for name in (op.result, op.inputs[0])):
        raise UnsupportedError(
            f"{op.kind} needs its last axis contiguous, found {op.type}", (op.result, op.source)
        )
    code, parameters = norm_call(context, op, row)
    return row_body(context, op, axis, code, NORM_WORK, parameters)


def norm_call(context: Context, op: Op, row: str) -> tuple[str, list[Access]]:
    """The call of a row function that normalizes `row` to ``_o``, and the parameters it reads."""
    connectors = {"layer_norm": ["_gamma", "_beta"], "rms_norm": ["_gamma"]}[op.kind]
    null = f"static_cast<const {stored_type(op.type.dtype)}*>(nullptr)"
    names = op.inputs[1:]
    given = [c if i < len(names) else null for i, c in enumerate(connectors)]
    length = text(expression(op.type.shape[-1]))
    epsilon = literal(op.attr("epsilon"), op.type.dtype)
    parameters = [
        whole(context, connector, context.array(name))
        for connector, name in zip(connectors, names, strict=False)
    ]
    return f"dfc::{op.kind}_row(_o, {row}, {', '.join(given)}, {length}, {epsilon});", parameters
