"""Decide where in memory each value lies; values that are never alive together share a place."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from typing import ClassVar

import sympy

from dfcompiler.analysis.liveness import Lifetime, aliases, value_lifetimes
from dfcompiler.ir import Container, Dim, DType, Loop, Op, Program, Role, State, TensorType
from dfcompiler.ir.dims import as_dim, equal, evaluate, expand, free_symbols, substitute, symbol
from dfcompiler.ir.rewrite import map_states
from dfcompiler.pipeline import Decline, Pass
from passes.rules.temporaries import merge_temporaries

TYPICAL_EXTENT = 128
"""The value of a symbol without maximum at which sizes are compared to choose places."""


@dataclass(frozen=True)
class PlanBuffers(Pass):
    """Assigns every value to a slot; each slot is as large as its largest value.

    ::

                                               temp @slot0: u8[4*S]
                                               temp @slot1: u8[4*S]
        %0: f32[S] = exp @x                    %0: f32[S] = exp @x {slot = "slot0"}
        %1: f32[S] = cumsum %0         ──▶     %1: f32[S] = cumsum %0 {slot = "slot1"}
        %2: f32[S] = cumsum %1                 %2: f32[S] = cumsum %1 {slot = "slot0"}
        @y: f32[S] = neg %2                    @y: f32[S] = neg %2

    Largest values first, each into the smallest slot in which nothing else is alive at the same
    time (greedy by size, after Pisarchyk and Lee, arXiv 2001.03288). A slice, a reshape or a
    transpose whose elements lie in its input's memory with strides becomes an alias of it. The
    order of operators is final: it is the order of execution. Temporary containers that operators
    write keep places of their own.
    """

    name: ClassVar[str] = "plan-buffers"
    claims: ClassVar[tuple[str, ...]] = (
        "ops ==",
        "flops ==",
        "moved_bytes ==",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        if any("slot" in op.attrs for op in program.ops()):
            return program
        program = merge_temporaries(program)
        shared = aliases(program)
        slots = _assign(program)
        names = _slot_names(program, len(slots))
        places = {
            (life.state, life.name): name
            for slot, name in zip(slots, names, strict=True)
            for life in slot.lifetimes
        }
        if not places and not shared:
            return program

        def planned(state: State) -> State:
            return replace(state, ops=tuple(_placed(op, state.name) for op in state.ops))

        def _placed(op: Op, state: str) -> Op:
            key = (state, op.result)
            if key in shared:
                return op.with_attrs(alias=True)
            return op.with_attrs(slot=places[key]) if key in places else op

        temporaries = tuple(
            Container(Role.TEMP, name, TensorType(DType.U8, (slot.size,)))
            for slot, name in zip(slots, names, strict=True)
        )
        mapped = map_states(program, planned)
        return replace(mapped, containers=program.containers + temporaries)


@dataclass
class _Slot:
    """Lifetimes in order; they are disjoint, so that two neighbours decide about a third."""

    typical: int
    size: Dim
    lifetimes: list[Lifetime] = field(default_factory=list)

    def is_free(self, life: Lifetime) -> bool:
        at = bisect_left(self.lifetimes, life.start, key=lambda other: other.start)
        return not any(life.overlaps(other) for other in self.lifetimes[max(at - 1, 0) : at + 1])

    def add(self, life: Lifetime) -> None:
        insort(self.lifetimes, life, key=lambda other: other.start)


def _assign(program: Program) -> list[_Slot]:
    """Slots with the values in them; numbered by their first value."""
    sizes = _sizes(program)
    typical = {s.name: s.maximum or TYPICAL_EXTENT for s in program.symbols}
    known: dict[Dim, int] = {}

    def at_typical(size: Dim) -> int:
        if size not in known:
            known[size] = evaluate(size, typical)
        return known[size]

    lifetimes = value_lifetimes(program)
    order = sorted(lifetimes, key=lambda life: -at_typical(sizes[life.state, life.name]))
    slots: list[_Slot] = []
    for life in order:
        size = sizes[life.state, life.name]
        # Slots grow smaller along the list: the last free one fits best.
        free = next((slot for slot in reversed(slots) if slot.is_free(life)), None)
        if free is None:
            free = _Slot(at_typical(size), size)
            slots.append(free)
        free.size = _larger(free.size, size)
        free.add(life)
    return sorted(slots, key=lambda slot: slot.lifetimes[0].start)


def _sizes(program: Program) -> dict[tuple[str, str], Dim]:
    """Bytes of every value; a loop variable in them stands at its greatest."""
    loops = {b.variable: b for b in program.blocks() if isinstance(b, Loop)}
    found: dict[tuple[str, str], Dim] = {}
    cache: dict[TensorType, Dim] = {}
    for state in program.states():
        for op in state.ops:
            if op.result.startswith("@"):
                continue
            if op.type not in cache:
                cache[op.type] = _greatest(op.type.stored_bytes, loops)
            found[state.name, op.result] = cache[op.type]
    return found


def _greatest(size: Dim, loops: dict[str, Loop]) -> Dim:
    """A size that grows or falls with each loop variable, at the better of the loop's two ends."""
    for name in sorted(free_symbols(size) & set(loops)):
        loop = loops[name]
        first = substitute(size, {name: loop.start})
        last = substitute(size, {name: as_dim(loop.stop - 1)})
        size = _larger(first, last)
    return size


def _larger(a: Dim, b: Dim) -> Dim:
    """The greater of two sizes, without `max` where one is never below the other."""
    if equal(a, b):
        return a
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if _never_below(a, b):
        return a
    return b if _never_below(b, a) else as_dim(sympy.Max(a, b))


def _never_below(a: Dim, b: Dim) -> bool:
    """Whether a polynomial difference has no negative coefficient, symbols being at least 1."""
    difference = sympy.sympify(expand(as_dim(a - b)))
    if not difference.is_polynomial(*difference.free_symbols):
        return False
    shift = {symbol(name): symbol(name) + 1 for name in free_symbols(difference)}
    terms = sympy.Add.make_args(sympy.expand(difference.subs(shift, simultaneous=True)))
    return all(not term.as_coeff_Mul()[0].is_negative for term in terms)


def _slot_names(program: Program, count: int) -> list[str]:
    taken = {c.name for c in program.containers}
    prefix = "slot"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return [f"{prefix}{i}" for i in range(count)]
