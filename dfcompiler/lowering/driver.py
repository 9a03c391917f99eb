"""From a program to an SDFG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import dace
import sympy
from dace import dtypes
from dace.sdfg.validation import InvalidSDFGError

from dfcompiler.errors import InternalError, UnsupportedError
from dfcompiler.ir.program import Loop, Op, Program
from dfcompiler.lowering.backend import Backend
from dfcompiler.lowering.backends import backend_of
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.control import lower_blocks
from dfcompiler.lowering.elementwise import ELEMENTWISE
from dfcompiler.lowering.lowered import Lowered
from dfcompiler.lowering.movement import lower_alias
from dfcompiler.lowering.profile import measured_ops, with_profile
from dfcompiler.lowering.symbolic import sdfg_name
from dfcompiler.target import Target

SAME_POSITION = frozenset((*ELEMENTWISE, "copy", "constant", "dim"))
"""Operators whose element i reads element i of operands of the result's shape."""


def lower(
    program: Program,
    target: Target,
    expansions: Mapping[str, str] | None = None,
    *,
    profile: bool = False,
) -> Lowered:
    """The SDFG of a verified program: one state for each operator, in the program's order.

    On a CPU all of them run inside one parallel region, as a nested SDFG
    (`region.in_one_region`); on a GPU each becomes a kernel or a launch of one (`cuda.maps`).
    Every array is an argument and nothing is allocated inside, so the memory plan of the program
    (``slot`` attributes) decides where each value lies; operators without a slot get one of their
    own.

    Args:
        program: a verified program.
        target: the machine to generate code for.
        expansions: implementation wanted for an operator kind, such as ``{"matmul": "pure"}``.
        profile: measure every operator; the program gets one output more (`profile`).

    Raises:
        UnsupportedError: naming every operator that has no code for its element types or layouts.
    """
    backend = backend_of(target)
    _check_supported(program, backend)
    measured = measured_ops(program) if profile else ()
    program = with_profile(program) if profile else program
    name = re.sub(r"\W+", "_", program.name, flags=re.ASCII) or "model"
    body = dace.SDFG(f"{name}_body")
    loops = (block.variable for block in program.blocks() if isinstance(block, Loop))
    for symbol in dict.fromkeys((*(symbol.name for symbol in program.symbols), *loops)):
        body.add_symbol(sdfg_name(symbol), dtypes.int64)
    context = Context(program, target, backend, body, expansions)
    failures: list[UnsupportedError] = []
    stamps = backend.stamps(context) if profile else None

    def attempt(context: Context, op: Op) -> None:
        try:
            lower_op(context, op)
            if stamps:
                stamps.after(op)
        except UnsupportedError as error:
            failures.append(error)

    if stamps:
        stamps.begin()
    lower_blocks(context, program.body, attempt)
    _raise_together(failures)
    sdfg = backend.enclose(body, name)
    _validate(sdfg)
    arguments = tuple(context.arguments[name] for name in sorted(context.arguments))
    work = sympy.Add(*context.works)
    records, sites = tuple(context.records), tuple(context.sites)
    instances = {family: tuple(found) for family, found in sorted(context.instances.items())}
    return Lowered(program, sdfg, arguments, records, sites, work, measured, instances)


def lower_op(context: Context, op: Op) -> None:
    """Lowers one operator into the current region.

    One that would overwrite elements of its own operand before it has read them goes through a
    value of its own.
    """
    if overwrites_operand(context, op):
        scratch = f"{op.result.replace('@', '%')}.next"
        lower_op(context, op.with_result(scratch))
        op = Op(op.result, op.type, "copy", (scratch,), source=op.source)
    if op.attr("alias", False):
        lower_alias(context, op)
        return
    context.define(op)
    context.backend.lowerings[op.kind](context, op)


def overwrites_operand(context: Context, op: Op) -> bool:
    """Whether `op` writes a container that it reads at other positions than it writes."""
    if not op.result.startswith("@"):
        return False
    memory = context.memory(op.result)
    own = [i for i, name in enumerate(op.inputs) if context.memory(name) == memory]
    if not own:
        return False
    if op.kind == "index_copy":
        return own != [0] or op.inputs[0] != op.result
    kinds = {inner.kind for inner in op.region or (op,)}
    here = all(op.inputs[i] == op.result or context.type(op.inputs[i]).same(op.type) for i in own)
    return not (here and kinds <= SAME_POSITION)


def _raise_together(failures: Sequence[UnsupportedError]) -> None:
    if len(failures) == 1:
        raise failures[0]
    if failures:
        lines = tuple(": ".join((error.message, *error.where)) for error in failures)
        raise UnsupportedError(f"{len(failures)} operators cannot be lowered to code", lines)


def _validate(sdfg: dace.SDFG) -> None:
    try:
        sdfg.validate()
    except InvalidSDFGError as error:
        raise InternalError(f"the SDFG of {sdfg.name} is not valid: {error}") from error


def _check_supported(program: Program, backend: Backend) -> None:
    missing = tuple(
        f"{op.kind}: {op.result}{f' from {op.source}' if op.source else ''}"
        for op in program.ops()
        if op.kind not in backend.lowerings
    )
    if missing:
        count = f"{len(missing)} operators cannot" if len(missing) > 1 else "an operator cannot"
        raise UnsupportedError(f"{count} be lowered to code for {backend.name}", missing)
