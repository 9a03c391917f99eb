"""When memory is in use: from the operator that writes it to the last one that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dfcompiler.analysis.layouts import VIEW_KINDS, View, view_of, whole
from dfcompiler.ir.program import Block, Branch, Loop, Program, Role, State
from dfcompiler.ir.types import TensorType


@dataclass(frozen=True)
class Lifetime:
    """Operators, counted through the whole program, between which a value must be kept.

    Attributes:
        name: ``%value`` or ``@container``.
        state: the state of a value; empty for a container.
        start: the operator that defines it.
        end: the last operator that reads it or one of its aliases; included.
    """

    name: str
    state: str
    start: int
    end: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are in use at one operator, the defining and the reading one included."""
        return self.start <= other.end and other.start <= self.end


def aliases(program: Program) -> dict[tuple[str, str], str]:
    """Views, which need no memory, by state and value, with the value or container they share.

    A chain of views leads to its first value. A container is shared only where its state does not
    write it afterwards.
    """
    containers = {f"@{c.name}": c.type for c in program.containers}
    found: dict[tuple[str, str], str] = {}
    for state in program.states():
        for name, root in state_aliases(state, containers).items():
            found[state.name, name] = root
    return found


def state_aliases(state: State, containers: Mapping[str, TensorType]) -> dict[str, str]:
    """The views of one state, with the value or container whose memory they are.

    Args:
        state: a state.
        containers: types by name, with the sigil.
    """
    written = {op.result: at for at, op in enumerate(state.ops) if op.result.startswith("@")}
    types = dict(containers)
    places: dict[str, View] = {}
    roots: dict[str, str] = {}
    for at, op in enumerate(state.ops):
        if op.result.startswith("@"):
            continue
        types[op.result] = op.type
        source = op.inputs[0] if op.kind in VIEW_KINDS else ""
        if not source or written.get(roots.get(source, source), -1) > at:
            continue
        base = places.get(source) or whole(types[source])
        place = view_of(op, types[source], base)
        if place is not None:
            places[op.result], roots[op.result] = place, roots.get(source, source)
    return roots


def value_lifetimes(program: Program) -> tuple[Lifetime, ...]:
    """The lifetime of every value that has memory of its own, in program order.

    Values are local to a state, and a state runs from its first operator to its last each time, so
    that loops around it do not extend them.
    """
    shared = aliases(program)
    found: list[Lifetime] = []
    for first, state in _numbered_states(program.body, 0):
        last = _last_uses_with_aliases(state, shared)
        for position, op in enumerate(state.ops):
            if not op.result.startswith("%") or (state.name, op.result) in shared:
                continue
            end = last.get(op.result, position)
            found.append(Lifetime(op.result, state.name, first + position, first + end))
    return tuple(found)


def container_lifetimes(program: Program) -> tuple[Lifetime, ...]:
    """The lifetime of every temporary container, over loops and branches.

    A container that is written and read within one iteration lives in it; any other use inside a
    loop extends to the whole loop.
    """
    spans: dict[str, tuple[int, int]] = {}
    _extend(program.body, 0, spans)
    temporaries = [f"@{c.name}" for c in program.by_role(Role.TEMP)]
    return tuple(Lifetime(n, "", *spans[n]) for n in temporaries if n in spans)


def _extend(blocks: tuple[Block, ...], at: int, spans: dict[str, tuple[int, int]]) -> int:
    """Adds the uses in `blocks` to `spans`; gives the number of the operator after them."""
    for block in blocks:
        match block:
            case State(ops=ops):
                for op in ops:
                    for name in (*op.inputs, op.result):
                        _use(name, at, at, spans)
                    at += 1
            case Branch(condition=condition, then=then, orelse=orelse):
                _use(condition, at, at, spans)
                at = _extend(orelse, _extend(then, at, spans), spans)
            case Loop():
                at = _extend_loop(block, at, spans)
    return at


def _extend_loop(loop: Loop, first: int, spans: dict[str, tuple[int, int]]) -> int:
    inside: dict[str, tuple[int, int]] = {}
    after = _extend(loop.body, first, inside)
    last = max(first, after - 1)
    if loop.until:
        _use(loop.until, first, last, inside)
    fresh = _written_first(loop.body) - {loop.until}
    for name, (start, end) in inside.items():
        if name in fresh and name not in spans:
            _use(name, start, end, spans)
        else:
            _use(name, first, last, spans)
    # A container that is also read after the loop keeps what the last iteration wrote: its span
    # grows when that use is met, and iterations overwrite it, so its start stays valid.
    return after


def _written_first(blocks: tuple[Block, ...]) -> set[str]:
    """Containers that every run of the blocks writes before it reads them."""
    written: set[str] = set()
    read: set[str] = set()
    for block in blocks:
        match block:
            case State(ops=ops):
                for op in ops:
                    read.update(n for n in op.inputs if n.startswith("@") and n not in written)
                    written.add(op.result)
            case Loop(body=body, until=until):
                read.update({until, *_touched(body)} - written)
            case Branch(condition=condition, then=then, orelse=orelse):
                read.update({condition, *_touched(then), *_touched(orelse)} - written)
    return written - read


def _touched(blocks: tuple[Block, ...]) -> set[str]:
    spans: dict[str, tuple[int, int]] = {}
    _extend(blocks, 0, spans)
    return set(spans)


def _use(name: str, start: int, end: int, spans: dict[str, tuple[int, int]]) -> None:
    if not name.startswith("@"):
        return
    first, last = spans.get(name, (start, end))
    spans[name] = (min(first, start), max(last, end))


def _numbered_states(blocks: tuple[Block, ...], at: int) -> Iterator[tuple[int, State]]:
    """Every state with the number of its first operator."""
    for block in blocks:
        match block:
            case State():
                yield at, block
                at += len(block.ops)
            case Loop(body=body):
                yield from _numbered_states(body, at)
                at += _count(body)
            case Branch(then=then, orelse=orelse):
                yield from _numbered_states(then, at)
                at += _count(then)
                yield from _numbered_states(orelse, at)
                at += _count(orelse)


def _count(blocks: tuple[Block, ...]) -> int:
    total = 0
    for block in blocks:
        match block:
            case State(ops=ops):
                total += len(ops)
            case Loop(body=body):
                total += _count(body)
            case Branch(then=then, orelse=orelse):
                total += _count(then) + _count(orelse)
    return total


def _last_uses(state: State) -> dict[str, int]:
    """The position of the last reader of every name."""
    return {name: i for i, op in enumerate(state.ops) for name in op.inputs}


def _last_uses_with_aliases(state: State, shared: dict[tuple[str, str], str]) -> dict[str, int]:
    """The same, uses of an alias counting for every value that shares its memory."""
    last = _last_uses(state)
    for op in reversed(state.ops):
        if (state.name, op.result) in shared:
            (source,) = op.inputs
            last[source] = max(last[source], last.get(op.result, 0))
    return last
