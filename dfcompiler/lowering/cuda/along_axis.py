"""Positions of greatest values and running sums on a GPU: a team of threads for each row."""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.reduction import HEADER
from dfcompiler.lowering.cuda.row_maps import KERNELS, add_rows, written_once
from dfcompiler.lowering.cuda.threads import WARP, Team, team_of
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.reduction import argmax_body, cumsum_body
from dfcompiler.lowering.symbolic import expression, product, text


def lower_argmax(context: Context, op: Op) -> None:
    """A team for each result."""
    (name,) = op.inputs
    axis, length, team = _team_along_operand(context, op)
    step = text(context.stride(name, axis))
    call = f"dfc::argmax_row<{team.threads}>(_x, {step}, {text(length)})"
    body = argmax_body(context, op, f"const auto _position = {call};")
    add_rows(context, op, written_once(body, "_position"), team)
    reason = f"greatest value and its position; {team}"
    context.record(KernelRecord(op, "dace-map + row function", reason))


def lower_cumsum(context: Context, op: Op) -> None:
    """One block for each row."""
    _, _, team = _team_along_operand(context, op)
    team = Team(max(WARP, team.threads), team.packs)
    add_rows(context, op, cumsum_body(context, op), team)
    reason = f"a scan of tiles, in order; {team}"
    context.record(KernelRecord(op, "dace-map + row function", reason))


def _team_along_operand(context: Context, op: Op) -> tuple[int, Any, Team]:
    """The operator's axis, its extent, and a team for each row of the operand along it."""
    context.include(HEADER, KERNELS)
    source = context.type(op.inputs[0])
    axis = normalize_axis(int(op.attr("axis")), source.rank)
    length = expression(source.shape[axis])
    rows = product(expression(dim) for a, dim in enumerate(source.shape) if a != axis)
    return axis, length, team_of(context, length, rows, source.dtype.bytes)
