"""How layers are wired: where each operand comes from, compared between layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfcompiler.ir.program import Container, Op, Role

Site = tuple[int, int]
"""An operand: the position of its operator in the layer, and its own among the inputs."""

COPIED_BYTES = 4096
"""The largest state of a layer whose copies cost nothing next to everything else."""


@dataclass(frozen=True)
class Repeat:
    """A chain of equal layers in a state.

    Attributes:
        before: operators in front of the layers, with those of the first layer that repeat not.
        layers: operators by layer and position.
        after: operators behind the layers.
        carried: operands that are a result of the layer before: site → position of that result.
        stacked: weights and persistent state by layer, of operands that read or update another one
            in each layer.
        written: persistent state by layer, of operators that write it.
        shared: operands that read the same thing in every layer, from outside of it.
    """

    before: tuple[Op, ...]
    layers: tuple[tuple[Op, ...], ...]
    after: tuple[Op, ...]
    carried: Mapping[Site, int]
    stacked: Mapping[Site, tuple[str, ...]]
    written: Mapping[int, tuple[str, ...]]
    shared: Mapping[Site, str]

    @property
    def users(self) -> dict[tuple[str, ...], set[int]]:
        """The stacked containers by layer, and the operators of a layer that use its own one."""
        found: dict[tuple[str, ...], set[int]] = {}
        used = [(at, names) for (at, _), names in self.stacked.items()]
        for at, names in (*used, *self.written.items()):
            found.setdefault(names, set()).add(at)
        return found


def updated_in_place(op: Op) -> bool:
    """Whether an operator changes some elements of what it writes and leaves the others there."""
    return op.kind == "index_copy" and "part" not in op.attrs and op.inputs[0] == op.result


def state_obstacle(repeat: Repeat, containers: Mapping[str, Container]) -> str:
    """Why persistent state that layers write cannot be stacked; empty if it can.

    A part of a container is memory of that container where it is read behind the last write in its
    state, and updates in place stay in place. All else is copied: a counter is, a cache is not.
    """
    layer, in_place = repeat.layers[0], set[int]()
    for at, names in repeat.written.items():
        if len(set(names)) < len(names):
            return f"every layer writes {layer[at].result}"
        in_place |= {at} if updated_in_place(layer[at]) else set()
    for at, names in repeat.written.items():
        size = containers[names[0]].type.stored_bytes
        if isinstance(size, int) and size <= COPIED_BYTES:
            continue
        if at not in in_place:
            return f"each layer writes the whole of its own {names[0]}, which would be copied"
        for (reader, i), read in repeat.stacked.items():
            if read == names and reader <= at and (i or reader not in in_place):
                return f"a layer reads {names[0]} before it updates it"
    return ""


class Wiring:
    """Where the operands of each layer come from, compared between layers.

    Attributes:
        reason: why layers are wired differently, where that has a name.
    """

    def __init__(
        self, layers: Sequence[tuple[Op, ...]], containers: Mapping[str, Container]
    ) -> None:
        self.layers, self.containers = layers, containers
        self.made = {
            op.result: (k, at) for k, layer in enumerate(layers) for at, op in enumerate(layer)
        }
        self.reason = ""

    def longest(self) -> tuple[int, int]:
        """The first layer and the number of layers of the longest part that is wired alike."""
        best, first = (0, 1), 0
        for k in range(1, len(self.layers)):
            agrees = k == first + 1 or self._origins(k) == self._origins(k - 1)
            if not (agrees and self._begins(first) and self._is_local(k)):
                first = k
            if k - first + 1 > best[1]:
                best = first, k - first + 1
        return best

    def _origins(self, k: int) -> dict[Site, object]:
        """For each operand of a layer: position inside or in the layer before, or a name."""
        found: dict[Site, object] = {}
        for at, op in enumerate(self.layers[k]):
            for i, name in enumerate(op.inputs):
                if self.is_kept(name):
                    found[at, i] = self.containers[name].role
                elif name in self.made:
                    layer, position = self.made[name]
                    found[at, i] = (k - layer, position)
                else:
                    found[at, i] = name
        return found

    def _is_local(self, k: int) -> bool:
        """Whether a layer reads nothing of the layers before the last one."""
        for origin in self._origins(k).values():
            if isinstance(origin, tuple) and origin[0] > 1:
                self.reason = "a layer reads a result of the layer before the last one"
                return False
        return True

    def _begins(self, first: int) -> bool:
        """Whether the first layer is wired like the next one where that reads inside itself."""
        if first + 1 >= len(self.layers):
            return True
        head, next_ = self._origins(first), self._origins(first + 1)
        initial: dict[int, str] = {}
        for site, origin in next_.items():
            if isinstance(origin, tuple) and origin[0] == 1:
                # What the next one has from the layer before, the first one has from in front.
                own, name = head[site], self.layers[first][site[0]].inputs[site[1]]
                if own is Role.WEIGHT or (isinstance(own, tuple) and own[0] == 0):
                    return False
                if initial.setdefault(origin[1], name) != name:
                    return False
            elif head[site] != origin:
                return False
        return True

    def repeat(
        self,
        before: tuple[Op, ...],
        layers: tuple[tuple[Op, ...], ...],
        after: tuple[Op, ...],
        first: int,
    ) -> Repeat:
        carried: dict[Site, int] = {}
        stacked: dict[Site, tuple[str, ...]] = {}
        shared: dict[Site, str] = {}
        for site, origin in self._origins(first + 1).items():
            names = tuple(layer[site[0]].inputs[site[1]] for layer in layers)
            if isinstance(origin, tuple):
                if origin[0] == 1:
                    carried[site] = origin[1]
            elif len(set(names)) > 1:
                stacked[site] = names
            else:
                shared[site] = names[0]
        written = {
            at: tuple(layer[at].result for layer in layers)
            for at, op in enumerate(layers[0])
            if op.result.startswith("@")
        }
        return Repeat(before, layers, after, carried, stacked, written, shared)

    def is_kept(self, name: str) -> bool:
        """Whether a name is a weight or persistent state: each layer may have one of its own."""
        kept = (Role.WEIGHT, Role.PERSIST)
        return name in self.containers and self.containers[name].role in kept
