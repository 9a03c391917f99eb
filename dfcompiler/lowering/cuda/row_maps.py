"""Maps over rows whose tasklets call device functions: a team of threads for each row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import add_row_map
from dfcompiler.lowering.cuda.threads import Team
from dfcompiler.lowering.maps import MapBody
from dfcompiler.lowering.symbolic import element_count

KERNELS = ("cuda",)
"""The generated file that calls device functions."""


def add_rows(context: Context, op: Op, body: MapBody, team: Team) -> None:
    """Adds a map whose iterations have a team of threads each."""
    add_row_map(context, context.new_state(op), body, team)


def written_once(body: MapBody, value: str) -> MapBody:
    """The map with `value` behind its code, which one thread of a team writes as the result."""
    (write,) = body.writes
    code = f"{body.code}\nif (threadIdx.x == 0) *_o = {value};"
    return replace(body, writes=[replace(write, pointer=True)], code=code)


def rows_of(op: Op, axis: int) -> Any:
    """How many rows the result has along `axis`."""
    return element_count(tuple(dim for a, dim in enumerate(op.type.shape) if a != axis))


def row_of(team: Team, row: str, aligned: str = "") -> str:
    """C++ of a row that the threads of a team share.

    Args:
        team: the threads.
        row: a pointer, or a function of packs.
        aligned: for a function: C++ of whether its operands are.
    """
    arguments = f"{aligned}, {row}" if aligned else row
    return f"dfc::rows::row_of<{team.threads}, {team.packs}>({arguments})"
