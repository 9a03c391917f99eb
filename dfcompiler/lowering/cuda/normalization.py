"""Softmax, layer norm and RMS norm on a GPU: a team of threads for each row."""

from __future__ import annotations

from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.row_maps import KERNELS, add_rows, row_of, rows_of
from dfcompiler.lowering.cuda.threads import Team, team_of
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import MapBody, add_map
from dfcompiler.lowering.normalization import norm_body, softmax_body
from dfcompiler.lowering.symbolic import expression

HEADER = "cuda/rows.h"


def lower_softmax(context: Context, op: Op) -> None:
    """A team for each row; one thread for each when the axis is not contiguous."""
    team = team_along(context, op, normalize_axis(int(op.attr("axis")), op.type.rank))
    body, contiguous = softmax_body(context, op, row_of(team, "_x"))
    context.include(HEADER, KERNELS)
    if contiguous:
        add_normalized_rows(context, op, body, team)
        return
    add_map(context, context.new_state(op), body)
    reason = "the axis is strided: neighbouring threads read neighbouring rows"
    context.record(KernelRecord(op, "dace-map, one thread a row", reason))


def lower_norm(context: Context, op: Op) -> None:
    """A team for each row of the last axis.

    Raises:
        UnsupportedError: if the last axis is not contiguous.
    """
    team = team_along(context, op, op.type.rank - 1)
    body = norm_body(context, op, row_of(team, "_x"))
    context.include(HEADER, KERNELS)
    add_normalized_rows(context, op, body, team)


def team_along(context: Context, op: Op, axis: int) -> Team:
    """The team for the rows of the result along `axis`."""
    length = expression(op.type.shape[axis])
    return team_of(context, length, rows_of(op, axis), op.type.dtype.bytes)


def add_normalized_rows(
    context: Context, op: Op, body: MapBody, team: Team, what: str = ""
) -> None:
    """Adds the map with a team for each row of `op`, and its record."""
    add_rows(context, op, body, team)
    reason = f"{what}{team}, statistics from registers"
    context.record(KernelRecord(op, "dace-map + row function", reason))
