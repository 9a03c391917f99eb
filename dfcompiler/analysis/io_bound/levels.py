"""Bounds at every level of a memory hierarchy, beside what the chosen schedule moves.

Each level is a fast memory of its own, whose slow memory is everything behind it: Q_i bytes cross
into level i, and no schedule takes less time than max Q_i / rate_i.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.analysis.io_bound.attention import Heads
from dfcompiler.analysis.io_bound.dependence import Types
from dfcompiler.analysis.io_bound.gemm import Product, best_block
from dfcompiler.analysis.io_bound.operator import compulsory_bytes, op_bound, parts
from dfcompiler.analysis.io_bound.words import elements_of
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.schedule import moved_bytes
from dfcompiler.ir.operators import OPERATORS
from dfcompiler.ir.program import Block, Branch, Loop, Op, Program, State
from dfcompiler.target import CpuTarget


@dataclass(frozen=True)
class Level:
    """A fast memory of each core, or of all.

    Attributes:
        name: such as ``L1``.
        fast_bytes: its size.
        rate: bytes a second that reach all memories of this level from behind.
        count: how many there are.
    """

    name: str
    fast_bytes: int
    rate: float
    count: int


def levels_of(target: CpuTarget, machine: Machine) -> tuple[Level, ...]:
    """Registers, L1 and L2 of each core, and the L3; an instruction loads one vector."""
    registers, cores = (32 if target.vector_bytes == 64 else 16), machine.threads
    load_rate = machine.vector_bytes / machine.vector_s * cores
    return (
        Level("registers", registers * target.vector_bytes, load_rate, cores),
        Level("L1", target.l1_bytes, machine.l2_rate * cores, cores),
        Level("L2", machine.l2_bytes, machine.l3_rate, cores),
        Level("L3", machine.l3_bytes, machine.memory_rate, 1),
    )


@dataclass(frozen=True)
class LevelBound:
    """What must and what does cross into one level in one run of an operator.

    Attributes:
        level: the memory.
        bound_bytes: what any schedule moves; None: no proof.
        theorem: where that comes from.
        moved_bytes: what the chosen schedule moves.
        best_block: for a product: the block of the result that this level would best hold.
    """

    level: Level
    bound_bytes: int | None
    theorem: str
    moved_bytes: int
    best_block: tuple[int, int] | None

    @property
    def ratio(self) -> float | None:
        """Moved bytes over the bound."""
        return self.moved_bytes / self.bound_bytes if self.bound_bytes else None


@dataclass(frozen=True)
class KernelBounds:
    """One run of an operator, in the last iteration of the loops around it.

    Attributes:
        op: the operator.
        runs: how often it runs in a call; of the two sides of a branch, both count.
        volume: multiply-adds of products and attention, else elements of the result.
        flops: operations.
        compulsory_bytes: operands loaded and results stored once; None where indices decide.
        levels: from the registers outward.
        binding: the level, or ``arithmetic``, that takes longest at its full rate.
        least_s: what that takes: no schedule is faster on this machine.
    """

    op: Op
    runs: int
    volume: int
    flops: int
    compulsory_bytes: int | None
    levels: tuple[LevelBound, ...]
    binding: str
    least_s: float


def kernel_bounds(
    program: Program, bindings: Mapping[str, int], levels: Sequence[Level], machine: Machine
) -> tuple[KernelBounds, ...]:
    """The bounds of every operator that moves something, in program order."""
    concrete = Concrete(program, bindings)
    found = (
        _bounds(original, op, types, runs, levels, machine)
        for original, op, types, runs in _ops(program.body, concrete, 1)
    )
    return tuple(one for one in found if any(level.moved_bytes for level in one.levels))


def _ops(
    blocks: tuple[Block, ...], concrete: Concrete, runs: int
) -> Iterator[tuple[Op, Op, Types, int]]:
    for block in blocks:
        match block:
            case State(ops=ops):
                views = concrete.views(block)
                for original, (op, types) in zip(ops, concrete.typed_ops(block), strict=True):
                    if op.result not in views:
                        yield original, op, types, runs
            case Branch(then=then, orelse=orelse):
                yield from _ops(then, concrete, runs)
                yield from _ops(orelse, concrete, runs)
            case Loop(variable=variable, body=body):
                values = concrete.iterations(block)
                if values:
                    with concrete.bound(variable, values[-1]):
                        yield from _ops(body, concrete, runs * len(values))


def _bounds(
    original: Op, op: Op, types: Types, runs: int, levels: Sequence[Level], machine: Machine
) -> KernelBounds:
    products = [part for part in parts(op, types) if isinstance(part.work, Product | Heads)]
    volume = sum(_volume(part.work) for part in products) or elements_of(op.type)
    flops = int(OPERATORS[op.kind].flops(op, types))
    rows, seconds = [], {"arithmetic": flops / (machine.tile_flops * machine.threads)}
    for level in levels:
        bound, theorem = op_bound(op, types, level.fast_bytes)
        widths = [part.bits for part in products if isinstance(part.work, Product)]
        block = best_block(level.fast_bytes * 8 // min(widths)) if widths else None
        moved = moved_bytes(op, types, level.fast_bytes)
        rows.append(LevelBound(level, bound, theorem, moved, block))
        # Several memories move no less than one as large as all of them.
        together, _ = op_bound(op, types, level.fast_bytes * level.count)
        seconds[level.name] = (together or 0) / level.rate
    binding = max(seconds, key=lambda name: seconds[name])
    compulsory = None if rows and rows[0].bound_bytes is None else compulsory_bytes(op, types)
    return KernelBounds(
        original, runs, volume, flops, compulsory, tuple(rows), binding, seconds[binding]
    )


def _volume(work: object) -> int:
    match work:
        case Product():
            return work.volume
        case Heads():
            return 2 * work.pairs * work.width
    return 0
