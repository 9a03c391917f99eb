"""Predicted seconds of every operator of a program: the time model, over branches and loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfcompiler.analysis.concrete import Concrete, mentions
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.schedule import bytes_of
from dfcompiler.analysis.time_model import kernel_s
from dfcompiler.ir.program import Block, Branch, Loop, Op, Program, State


@dataclass(frozen=True)
class KernelTime:
    """The predicted time of one operator.

    Attributes:
        op: the operator.
        runs: how often it runs in a call; of the two sides of a branch, both count.
        seconds: of all runs.
    """

    op: Op
    runs: int
    seconds: float


def program_times(
    program: Program, sizes: Mapping[str, int], machine: Machine
) -> tuple[KernelTime, ...]:
    """The predicted time of every operator, in program order."""
    concrete = Concrete(program, sizes)
    return tuple(_listed(program.body, concrete, machine, weights_of(program)))


def weights_of(program: Program) -> int:
    """Bytes of the weights that a call reads whole; of a table it picks rows."""
    whole = {name for op in program.ops() if op.kind != "gather" for name in op.inputs}
    return sum(bytes_of(c.type) for c in program.weights if f"@{c.name}" in whole)


def _listed(
    blocks: tuple[Block, ...], concrete: Concrete, machine: Machine, weights: int
) -> list[KernelTime]:
    found: list[KernelTime] = []
    for block in blocks:
        match block:
            case State():
                found += [
                    KernelTime(original, 1, kernel_s(op, types, machine, weights))
                    for original, (op, types) in zip(
                        block.ops, concrete.typed_ops(block), strict=True
                    )
                ]
            case Branch():
                found += _listed(block.then, concrete, machine, weights)
                found += _listed(block.orelse, concrete, machine, weights)
            case Loop():
                found += _looped(block, concrete, machine, weights)
    return found


def _looped(loop: Loop, concrete: Concrete, machine: Machine, weights: int) -> list[KernelTime]:
    """All iterations; each is looked at where extents depend on the loop's variable."""
    values = concrete.iterations(loop)
    same = not mentions(loop.body, loop.variable)
    totals: dict[int, KernelTime] = {}
    for value in values[:1] if same else values:
        with concrete.bound(loop.variable, value):
            for number, one in enumerate(_listed(loop.body, concrete, machine, weights)):
                before = totals.get(number, KernelTime(one.op, 0, 0.0))
                runs, seconds = before.runs + one.runs, before.seconds + one.seconds
                totals[number] = KernelTime(one.op, runs, seconds)
    times = len(values) if same else 1
    return [KernelTime(t.op, t.runs * times, t.seconds * times) for t in totals.values()]
