"""What a program costs at concrete extents: operations, bytes moved, bytes stored.

Moved bytes are those that the schedule of each kernel moves between slow memory and a fast memory
of `fast_bytes`: kernels hand over through slow memory, and a kernel whose working set does not fit
reads operands again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dfcompiler.analysis.concrete import Concrete, Shared, mentions
from dfcompiler.analysis.io_bound import op_bound, program_bound
from dfcompiler.analysis.schedule import moved_bytes
from dfcompiler.errors import InternalError
from dfcompiler.ir.operators import OPERATORS
from dfcompiler.ir.printer import show_op
from dfcompiler.ir.program import Block, Branch, Loop, Op, Program, Role, State
from dfcompiler.ir.types import TensorType

FAST_BYTES = 2 << 20
"""The fast memory that metrics assume when no machine is named: one core's L2 cache."""

ALIGNMENT = 64
"""Bytes to whose multiple a value's memory is rounded up."""


@dataclass(frozen=True)
class Metrics:
    """A program in numbers, at one binding of its symbols.

    Attributes:
        ops: operators outside regions, each counted once however often it runs.
        flops: floating-point operations of a call, a multiply-add counting two.
        moved_bytes: bytes that the kernels' schedules move in a call.
        io_bound_bytes: bytes that any schedule of this computation must move; None: no proof.
        weight_bytes: bytes of all weights as stored.
        value_bytes: memory for values and temporaries: the planned slots, or every value apart.
    """

    ops: int
    flops: int
    moved_bytes: int
    io_bound_bytes: int | None
    weight_bytes: int
    value_bytes: int


@dataclass(frozen=True)
class OpCost:
    """What one operator costs in a call.

    Attributes:
        op: the operator.
        runs: how often it runs in a call; of the two sides of a branch, both count.
        flops: operations of all runs.
        moved_bytes: bytes that its schedule moves in all runs.
        io_bound_bytes: bytes that the operator alone must move in all runs; None: no proof.
        theorem: where that bound comes from.
    """

    op: Op
    runs: int
    flops: int
    moved_bytes: int
    io_bound_bytes: int | None
    theorem: str


def measure(
    program: Program,
    bindings: Mapping[str, int],
    fast_bytes: int = FAST_BYTES,
    shared: Shared | None = None,
) -> Metrics:
    """The metrics of `program` with every symbol bound.

    A branch counts with its dearer side, a loop with all its iterations. Given what is `shared`
    with other programs, operators that they have in common are measured once.

    Raises:
        InternalError: if the moved bytes come out below the bound.
    """
    concrete = Concrete(program, bindings, shared)
    flops, moved = _Meter(concrete, fast_bytes).blocks(program.body)
    bound = program_bound(program, concrete)
    if bound is not None and moved < bound:
        raise InternalError(
            f"moved_bytes {moved} is below io_bound_bytes {bound} at {dict(bindings)}"
        )
    return Metrics(
        ops=sum(1 for _ in program.ops()),
        flops=flops,
        moved_bytes=moved,
        io_bound_bytes=bound,
        weight_bytes=sum(concrete.stored_bytes(c.type) for c in program.weights),
        value_bytes=_value_bytes(program, concrete),
    )


def op_costs(
    program: Program, bindings: Mapping[str, int], fast_bytes: int = FAST_BYTES
) -> tuple[OpCost, ...]:
    """The cost of every operator, in program order.

    Raises:
        InternalError: if an operator moves less than its bound.
    """
    return tuple(_Meter(Concrete(program, bindings), fast_bytes).listed(program.body))


def _value_bytes(program: Program, concrete: Concrete) -> int:
    temporaries = [concrete.stored_bytes(c.type) for c in program.by_role(Role.TEMP)]
    sizes = (*temporaries, *_value_sizes(program.body, concrete))
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _value_sizes(blocks: tuple[Block, ...], concrete: Concrete) -> list[int]:
    """Bytes of every value that has memory of its own; in a loop, at its larger end."""
    sizes: list[int] = []
    for block in blocks:
        match block:
            case State(ops=ops):
                views = concrete.views(block)
                own = [op for op in ops if op.result not in views and _has_own_memory(op)]
                sizes += [concrete.stored_bytes(op.type) for op in own]
            case Branch(then=then, orelse=orelse):
                sizes += _value_sizes(then, concrete) + _value_sizes(orelse, concrete)
            case Loop(body=body):
                values = concrete.iterations(block)
                if values:
                    ends = []
                    for value in (values[0], values[-1]):
                        with concrete.bound(block.variable, value):
                            ends.append(_value_sizes(body, concrete))
                    sizes += map(max, *ends)
    return sizes


def _has_own_memory(op: Op) -> bool:
    planned = "slot" in op.attrs or bool(op.attr("alias", False))
    return op.result.startswith("%") and not planned


class _Meter:
    """Adds up costs over the state machine."""

    def __init__(self, concrete: Concrete, fast_bytes: int) -> None:
        self.concrete, self.fast_bytes = concrete, fast_bytes

    def blocks(self, blocks: tuple[Block, ...]) -> tuple[int, int]:
        """Operations and moved bytes of running the blocks once."""
        flops = moved = 0
        for block in blocks:
            more_flops, more_moved = self.block(block)
            flops, moved = flops + more_flops, moved + more_moved
        return flops, moved

    def block(self, block: Block) -> tuple[int, int]:
        match block:
            case State():
                return self.state(block)
            case Branch():
                then, orelse = self.blocks(block.then), self.blocks(block.orelse)
                return max(then[0], orelse[0]), max(then[1], orelse[1])
            case Loop():
                return self.loop(block)

    def loop(self, loop: Loop) -> tuple[int, int]:
        values = self.concrete.iterations(loop)
        if not values:
            return 0, 0
        if not mentions(loop.body, loop.variable):
            with self.concrete.bound(loop.variable, values[0]):
                flops, moved = self.blocks(loop.body)
            return flops * len(values), moved * len(values)
        flops = moved = 0
        for value in values:
            with self.concrete.bound(loop.variable, value):
                more_flops, more_moved = self.blocks(loop.body)
            flops, moved = flops + more_flops, moved + more_moved
        return flops, moved

    def state(self, state: State) -> tuple[int, int]:
        flops = moved = 0
        views = self.concrete.views(state)
        for op, types in self.concrete.typed_ops(state):
            more_flops, more_moved = self.operator(op, types)
            flops += more_flops
            if op.result not in views:
                moved += more_moved
        return flops, moved

    def operator(self, op: Op, types: tuple[TensorType, ...]) -> tuple[int, int]:
        """Operations and moved bytes of one run of an operator that is no view."""
        return self.concrete.shared.once(
            ("cost", self.fast_bytes),
            op,
            types,
            lambda op, types: (op_flops(op, types), moved_bytes(op, types, self.fast_bytes)),
        )

    def listed(self, blocks: tuple[Block, ...]) -> Iterator[OpCost]:
        """The cost of every operator; loops multiply, or add up where extents change."""
        for block in blocks:
            match block:
                case State():
                    yield from self.listed_state(block)
                case Branch():
                    yield from self.listed(block.then)
                    yield from self.listed(block.orelse)
                case Loop():
                    yield from self.listed_loop(block)

    def listed_state(self, state: State) -> Iterator[OpCost]:
        views = self.concrete.views(state)
        for original, (op, types) in zip(state.ops, self.concrete.typed_ops(state), strict=True):
            moved = 0 if op.result in views else moved_bytes(op, types, self.fast_bytes)
            bound, theorem = op_bound(op, types, self.fast_bytes)
            if bound is not None and moved < bound:
                raise InternalError(
                    f"{op.kind} moves {moved} bytes, below its bound of {bound} ({theorem})",
                    (f"  > {show_op(original)}",),
                )
            yield OpCost(original, 1, op_flops(op, types), moved, bound, theorem)

    def listed_loop(self, loop: Loop) -> Iterator[OpCost]:
        values = self.concrete.iterations(loop)
        if not values:
            return
        same = not mentions(loop.body, loop.variable)
        totals: list[OpCost] = []
        for value in values[:1] if same else values:
            with self.concrete.bound(loop.variable, value):
                found = list(self.listed(loop.body))
            totals = [_sum(*pair) for pair in zip(totals, found, strict=True)] if totals else found
        yield from (_times(cost, len(values)) if same else cost for cost in totals)


def op_flops(op: Op, types: tuple[TensorType, ...]) -> int:
    """Operations of one run of an operator whose types are concrete."""
    return int(OPERATORS[op.kind].flops(op, types))


def _sum(a: OpCost, b: OpCost) -> OpCost:
    bounds = (a.io_bound_bytes, b.io_bound_bytes)
    return replace(
        a,
        runs=a.runs + b.runs,
        flops=a.flops + b.flops,
        moved_bytes=a.moved_bytes + b.moved_bytes,
        io_bound_bytes=None if None in bounds else sum(x for x in bounds if x is not None),
    )


def _times(cost: OpCost, runs: int) -> OpCost:
    bound = cost.io_bound_bytes
    return replace(
        cost,
        runs=cost.runs * runs,
        flops=cost.flops * runs,
        moved_bytes=cost.moved_bytes * runs,
        io_bound_bytes=None if bound is None else bound * runs,
    )
