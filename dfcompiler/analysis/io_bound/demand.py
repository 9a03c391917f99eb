"""Compulsory traffic: what must be loaded of inputs and weights, and what must be stored.

The bound of a whole program. Bounds of operators do not add up to it, because a fused schedule
keeps results in fast memory.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.analysis.io_bound.words import bytes_of_elements, dense_bytes, elements_of
from dfcompiler.ir.operators import OPERATORS, OpClass
from dfcompiler.ir.program import Block, Branch, Container, Loop, Op, Program, Role, State
from dfcompiler.ir.stacked import address_of
from dfcompiler.ir.types import TensorType

Types = tuple[TensorType, ...]


def program_bound(program: Program, concrete: Concrete) -> int:
    """Bytes that any schedule of the whole program moves.

    Every element of an input or weight on which the outputs or the persistent state depend is
    loaded, and every output stored. Where it is not known which elements are needed (gathers,
    branches), none are counted.
    """
    demand = _Demand(program, concrete)
    demand.blocks(program.body)
    loaded: dict[object, int] = {}
    for container in program.containers:
        if container.role in (Role.INPUT, Role.WEIGHT):
            elements = demand.containers.get(f"@{container.name}", 0)
            found = bytes_of_elements(concrete.type(container.type), elements)
            source = _source(program, container)
            loaded[source] = max(loaded.get(source, 0), found)
    stored = sum(dense_bytes(concrete.type(output.type)) for output in program.outputs)
    return sum(loaded.values()) + stored


def _source(program: Program, container: Container) -> object:
    """What tells a container's values from others: weights in two layouts hold the same ones."""
    data = program.data.get(container.name)
    if data is None or container.role is not Role.WEIGHT or not data.size:
        return container.name
    return address_of(data)


@dataclass
class _Wanted:
    """Elements that are needed of one value, at least: by any reader, and by slices of it.

    Slices that lie side by side along an axis need different elements.
    """

    most: int = 0
    parts: dict[_Part, int] = field(default_factory=dict)

    def add(self, count: int, part: _Part | None = None) -> None:
        """Takes note of one reader, of everything or of a part."""
        if part is None:
            self.most = max(self.most, count)
        else:
            self.parts[part] = max(self.parts.get(part, 0), count)

    def merge(self, other: _Wanted) -> None:
        """Takes note of all readers that `other` knows."""
        self.add(other.most)
        for part, count in other.parts.items():
            self.add(count, part)

    def total(self) -> int:
        """Elements that are needed by all of them together, at least."""
        counts = [self.most, *self.parts.values()]
        for axis in {part.axis for part in self.parts}:
            along = sorted(part for part in self.parts if part.axis == axis)
            if all(a.stop <= b.start for a, b in pairwise(along)):
                counts.append(sum(self.parts[part] for part in along))
        return max(counts)


class _Part(NamedTuple):
    """A slice along one axis, whole along the others."""

    axis: int
    start: int
    stop: int


def needed_elements(op: Op, types: Types, wanted: int) -> dict[str, int]:
    """How many elements of each input are needed, at least, for `wanted` elements of the result."""
    return {name: found.total() for name, found in _needs(op, types, wanted).items()}


def _needs(op: Op, types: Types, wanted: int) -> dict[str, _Wanted]:
    needs: dict[str, _Wanted] = defaultdict(_Wanted)
    if not wanted:
        return needs
    if op.region:
        return _needed_by_region(op, types, wanted)
    whole = wanted >= elements_of(op.type)
    for index, (name, tensor) in enumerate(zip(op.inputs, types, strict=True)):
        needs[name].add(_needed(op, index, tensor, wanted, whole), _part(op, tensor))
    return needs


def _part(op: Op, source: TensorType) -> _Part | None:
    """The part of its input that a slice takes, if it cuts one axis only."""
    if op.kind != "slice" or any(step != 1 for step in op.attr("steps") or ()):
        return None
    starts, shape = op.attr("starts"), op.type.shape
    cut = [a for a, extent in enumerate(source.shape) if int(extent) != int(shape[a])]
    if len(cut) != 1 or not isinstance(starts[cut[0]], int):
        return None
    (axis,) = cut
    return _Part(axis, starts[axis], starts[axis] + int(shape[axis]))


def _needed(op: Op, index: int, tensor: TensorType, wanted: int, whole: bool) -> int:
    total = elements_of(tensor)
    match op.kind, index:
        case ("gather" | "take_along", 0) | ("index_copy", 0 | 2):
            return 0
        case ("reshape" | "transpose" | "copy" | "slice", _):
            return min(wanted, total)
    if OPERATORS[op.kind].op_class is OpClass.ELEMENTWISE and elements_of(op.type) == total:
        return min(wanted, total)
    return total if whole else 0


def _needed_by_region(op: Op, types: Types, wanted: int) -> dict[str, _Wanted]:
    scope = dict(zip(op.inputs, types, strict=True))
    inner_types: list[Types] = []
    for inner in op.region:
        inner_types.append(tuple(scope[name] for name in inner.inputs))
        scope[inner.result] = inner.type
    demand: dict[str, _Wanted] = defaultdict(_Wanted)
    demand[op.region[-1].result].add(wanted)
    for inner, found in zip(reversed(op.region), reversed(inner_types), strict=True):
        for name, more in _needs(inner, found, demand[inner.result].total()).items():
            demand[name].merge(more)
    return {name: demand[name] for name in op.inputs}


class _Demand:
    """Elements that are needed of each container, from the end of the program backward."""

    def __init__(self, program: Program, concrete: Concrete) -> None:
        self.concrete = concrete
        self.containers: dict[str, int] = {}
        for container in program.containers:
            if container.role in (Role.OUTPUT, Role.PERSIST):
                self.containers[f"@{container.name}"] = elements_of(concrete.type(container.type))

    def blocks(self, blocks: tuple[Block, ...]) -> None:
        for block in reversed(blocks):
            match block:
                case State():
                    self.state(block)
                case Branch(then=then, orelse=orelse):
                    # Neither side is known to run: what they read is not counted, and what
                    # they write may come from them.
                    self.forget(_written(then) | _written(orelse))
                case Loop():
                    self.loop(block)

    def loop(self, loop: Loop) -> None:
        """The last iteration is known to run; what it reads may come from the one before."""
        values = self.concrete.iterations(loop)
        if not values:
            return
        with self.concrete.bound(loop.variable, values[0 if loop.until else -1]):
            self.blocks(loop.body)
        if len(values) > 1:
            self.forget(_written(loop.body))

    def forget(self, names: set[str]) -> None:
        for name in names:
            self.containers[name] = 0

    def state(self, state: State) -> None:
        values: dict[str, _Wanted] = defaultdict(_Wanted)
        for op, types in reversed(tuple(self.concrete.typed_ops(state))):
            wanted = self.take(op.result, values)
            for name, found in _needs(op, types, wanted).items():
                if name.startswith("@"):
                    self.containers[name] = max(self.containers.get(name, 0), found.total())
                else:
                    values[name].merge(found)

    def take(self, result: str, values: dict[str, _Wanted]) -> int:
        """The demand for what an operator defines; before it, a container is not needed for it."""
        if result.startswith("@"):
            return self.containers.pop(result, 0)
        return values.pop(result, _Wanted()).total()


def _written(blocks: tuple[Block, ...]) -> set[str]:
    found: set[str] = set()
    for block in blocks:
        match block:
            case State(ops=ops):
                found.update(op.result for op in ops if op.result.startswith("@"))
            case Loop(body=body):
                found |= _written(body)
            case Branch(then=then, orelse=orelse):
                found |= _written(then) | _written(orelse)
    return found
