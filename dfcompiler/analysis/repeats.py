"""Repeated layers: stretches of a state that are the same graph over other weights.

Two operators are alike when kind, type, attributes, region and the kinds of their operands are the
same. A stretch of operators that are alike with those one period later is a chain of candidate
layers; it is one of equal layers when the wiring is the same too, operand by operand: from inside
the layer, from the layer before, from outside and the same for every layer, or from a weight or
persistent state, which each layer may have of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dfcompiler.analysis.layouts import VIEW_KINDS
from dfcompiler.analysis.wiring import Repeat, Wiring, state_obstacle
from dfcompiler.ir.program import Container, Op, Role, State

LEAST_LAYERS = 3
"""Fewer copies are left as they are: a loop needs operators of its own."""
_LONGEST_GAP = 16
"""Operators of a first layer that may stand between those that repeat, to be moved in front."""


def find_repeat(state: State, containers: Mapping[str, Container]) -> Repeat | str:
    """The longest chain of equal layers of a state, or why there is none.

    Args:
        state: a state.
        containers: containers by name, with the sigil.
    """
    alike = _numbered(state, containers)
    stretch = _longest_stretch(alike)
    if stretch is None:
        return f"no operators repeat {LEAST_LAYERS} times"
    first, last, period = stretch
    best: Repeat | None = None
    reason, fewest = "", None
    for handed, start in _starts(state, first, last, period):
        if best is not None and handed != fewest:
            break
        found = _chain(state, containers, alike, start, last, period)
        if isinstance(found, str):
            reason = reason or found
        elif best is None or len(found.layers) > len(best.layers):
            best, fewest = found, handed
    return best or reason


def _numbered(state: State, containers: Mapping[str, Container]) -> list[int]:
    """A number for each operator; those that are alike have the same."""
    types = {name: container.type for name, container in containers.items()}
    types |= {op.result: op.type for op in state.ops}
    kept = {n: c.role for n, c in containers.items() if c.role in (Role.WEIGHT, Role.PERSIST)}
    numbers: dict[object, int] = {}

    found = []
    for op in state.ops:
        own = containers.get(op.result)
        place: object = None if own is None or own.role is Role.OUTPUT else op.result
        if own is not None and own.role is Role.PERSIST:
            place = tuple(name == op.result for name in op.inputs)
        same = tuple(op.inputs.index(name) for name in op.inputs)
        operands = tuple((types[name], kept.get(name)) for name in op.inputs)
        key = (_shape_of(op), place, same, operands)
        found.append(numbers.setdefault(key, len(numbers)))
    return found


def _shape_of(op: Op) -> object:
    """An operator without names: operands of a region by their position."""
    names = {name: -1 - i for i, name in reversed(list(enumerate(op.inputs)))}
    inner = []
    for position, part in enumerate(op.region):
        read = tuple(names[name] for name in part.inputs)
        inner.append((part.kind, part.type, part.attrs, read))
        names[part.result] = position
    return op.kind, op.type, op.attrs, tuple(inner)


def _longest_stretch(alike: Sequence[int]) -> tuple[int, int, int] | None:
    """First operator, end and period of the longest stretch in which each is alike the next one."""
    gaps: Counter[int] = Counter()
    seen: dict[int, int] = {}
    for at, number in enumerate(alike):
        if number in seen:
            gaps[at - seen[number]] += 1
        seen[number] = at
    best: tuple[int, int, int] | None = None
    for period, _ in sorted(gaps.most_common(8)):
        start = 0
        for at in range(len(alike)):
            if at + period < len(alike) and alike[at] == alike[at + period]:
                continue
            length = at + period - start
            longest = best[1] - best[0] if best else 0
            if length > max(longest, (LEAST_LAYERS - 1) * period - 1) and at > start:
                best = (start, at + period, period)
            start = at + 1
    return best


def _starts(state: State, first: int, last: int, period: int) -> list[tuple[object, int]]:
    """Where a layer may begin, those places first across which the fewest values go."""
    made = {op.result: at for at, op in enumerate(state.ops)}
    uses = [[made[name] for name in op.inputs if name in made] for op in state.ops]
    middle = first + (last - first) // (2 * period) * period

    def crossing(start: int) -> tuple[int, int]:
        cut = middle + (start - first)
        inside = range(cut, min(cut + period, last))
        read = {at for user in inside for at in uses[user] if first <= at < cut}
        views = sum(state.ops[at].kind in VIEW_KINDS for at in read)
        return len(read), views

    return sorted((crossing(start), start) for start in range(first, min(first + period, last)))


def _chain(
    state: State,
    containers: Mapping[str, Container],
    alike: Sequence[int],
    start: int,
    last: int,
    period: int,
) -> Repeat | str:
    """The equal layers from `start` on, and the one before if it is there among other operators."""
    count = (last - start) // period
    ops = state.ops
    layers = [ops[start + k * period : start + (k + 1) * period] for k in range(count)]
    if not layers:
        return "no whole layer repeats"
    pattern = list(alike[start : start + period])
    before, head = _layer_before(ops[:start], alike[:start], pattern)
    if head:
        layers = [head, *layers]
    end = start + count * period
    return _wired(before, layers, ops[end:], containers)


def _layer_before(
    ops: Sequence[Op], alike: Sequence[int], pattern: Sequence[int]
) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """The operators in front with a layer taken out of their end; no layer if it is not there."""
    layer: list[Op] = []
    others: list[Op] = []
    at = len(ops)
    while len(layer) < len(pattern) and at > 0 and len(others) <= _LONGEST_GAP:
        at -= 1
        wanted = pattern[len(pattern) - 1 - len(layer)]
        (layer if alike[at] == wanted else others).append(ops[at])
    made = {op.result for op in layer}
    writes = any(op.result.startswith("@") for op in others)
    independent = not writes and not any(name in made for op in others for name in op.inputs)
    if len(layer) < len(pattern) or not independent:
        return tuple(ops), ()
    return (*ops[:at], *reversed(others)), tuple(reversed(layer))


def _wired(
    before: tuple[Op, ...],
    layers: list[tuple[Op, ...]],
    after: tuple[Op, ...],
    containers: Mapping[str, Container],
) -> Repeat | str:
    """The longest part of the chain whose layers are wired alike."""
    wiring = Wiring(layers, containers)
    first, count = wiring.longest()
    if count < LEAST_LAYERS:
        return wiring.reason or f"only {count} layers in a row are wired alike"
    front = tuple(op for layer in layers[:first] for op in layer)
    back = tuple(op for layer in layers[first + count :] for op in layer)
    found = layers[first : first + count]
    before, after = (*before, *front), (*back, *after)
    kept = {name for name, container in containers.items() if container.role is Role.PERSIST}
    made = {op.result for layer in found[:-1] for op in layer} - kept
    if any(name in made for op in after for name in op.inputs):
        return "what a layer computes is read behind the last one"
    written = sorted(name for name in made if name.startswith("@"))
    if written:
        return f"each layer writes a container of its own, such as {written[0]}"
    repeat = wiring.repeat(before, tuple(found), after, first)
    return state_obstacle(repeat, containers) or repeat
