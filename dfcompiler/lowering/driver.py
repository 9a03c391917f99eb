"""From a program to an SDFG."""

from __future__ import annotations

import re
from collections.abc import Mapping

import dace
from dace import dtypes

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Loop, Op, Program
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.control import lower_blocks
from dfcompiler.lowering.lowered import Lowered
from dfcompiler.lowering.registry import LOWERINGS
from dfcompiler.target import CpuTarget


def lower(
    program: Program, target: CpuTarget, expansions: Mapping[str, str] | None = None
) -> Lowered:
    """The SDFG of a verified program: one state for each operator, in the program's order.

    Every array is an argument and nothing is allocated inside, so the memory plan of the program
    (``slot`` attributes) decides where each value lies; operators without a slot get one of their
    own.

    Args:
        program: a verified program.
        target: the machine to generate code for.
        expansions: implementation wanted for an operator kind, such as ``{"matmul": "pure"}``.

    Raises:
        UnsupportedError: naming every operator that has no lowering.
    """
    _check_supported(program)
    sdfg = dace.SDFG(re.sub(r"\W+", "_", program.name, flags=re.ASCII) or "model")
    for symbol in program.symbols:
        sdfg.add_symbol(symbol.name, dtypes.int64)
    for block in program.blocks():
        if isinstance(block, Loop) and block.variable not in sdfg.symbols:
            sdfg.add_symbol(block.variable, dtypes.int64)
    context = Context(program, target, sdfg, expansions)
    lower_blocks(context, program.body, lower_op)
    arguments = tuple(context.arguments[name] for name in sorted(context.arguments))
    return Lowered(program, sdfg, arguments, tuple(context.records), tuple(context.sites))


def lower_op(context: Context, op: Op) -> None:
    """Lowers one operator into the current region."""
    if not op.attr("alias", False):
        context.define(op)
    LOWERINGS[op.kind](context, op)


def _check_supported(program: Program) -> None:
    missing = tuple(
        f"{op.kind}: {op.result}{f' from {op.source}' if op.source else ''}"
        for op in program.ops()
        if op.kind not in LOWERINGS
    )
    if missing:
        raise UnsupportedError(f"{len(missing)} operators cannot be lowered to code", missing)
