"""Compulsory traffic: what must be loaded of inputs and weights, and what must be stored.

The bound of a whole program. Bounds of operators do not add up to it, because a fused schedule
keeps results in fast memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from dfcompiler.analysis.concrete import OFFSETS, Concrete, mentions
from dfcompiler.analysis.io_bound.boxes import Box, Region, whole
from dfcompiler.analysis.io_bound.dependence import needs
from dfcompiler.analysis.io_bound.words import bytes_of_elements, dense_bytes
from dfcompiler.ir.dims import free_symbols
from dfcompiler.ir.program import Block, Branch, Container, Loop, Op, Program, Role, State, ops_in
from dfcompiler.ir.stacked import SideBySide, Stacked, address_of
from dfcompiler.ir.types import TensorType

Values = tuple[object, TensorType]
"""Where values are, and as what they are read from there."""


def program_bound(program: Program, concrete: Concrete) -> int:
    """Bytes that any schedule of the whole program moves.

    Every element of an input or weight on which the outputs or the persistent state depend is
    loaded, and every output stored. Where it is not known which elements are needed, one of them
    is (gathers), or none are counted (branches). Elements of a weight are what it was made from,
    so that the same ones count once, however they are put together.
    """
    demand = _Demand(program, concrete)
    demand.blocks(program.body)
    loaded: dict[Values, Region] = defaultdict(Region)
    for container in program.containers:
        if container.role in (Role.INPUT, Role.WEIGHT):
            wanted = demand.containers[f"@{container.name}"]
            for values, box in _sources(program, container, concrete, wanted):
                loaded[values].add(box)
    most: dict[object, int] = defaultdict(int)
    for (source, tensor), region in loaded.items():
        most[source] = max(most[source], bytes_of_elements(tensor, region.count()))
    stored = sum(dense_bytes(concrete.type(output.type)) for output in program.outputs)
    return sum(most.values()) + stored


def _sources(
    program: Program, container: Container, concrete: Concrete, wanted: Region
) -> Iterator[tuple[Values, Box]]:
    """What is needed of the arrays that a container's values are in."""
    data = program.data.get(container.name)
    tensor = concrete.type(container.type)
    if data is None or container.role is not Role.WEIGHT or not data.size:
        yield from (((container.name, tensor), box) for box in wanted.boxes)
        return
    for array, box in _arrays(data, wanted.boxes):
        yield (address_of(array), tensor.with_shape(array.shape)), box


def _arrays(data: np.ndarray, boxes: Sequence[Box]) -> Iterator[tuple[np.ndarray, Box]]:
    """The arrays that data is put together from, with boxes of them."""
    if not isinstance(data, Stacked | SideBySide):
        yield from ((data, box) for box in boxes)
        return
    start = 0
    for part in data.parts:
        stop = start + (1 if isinstance(data, Stacked) else part.shape[-1])
        inside = []
        for box in boxes:
            axis = 0 if isinstance(data, Stacked) else len(box) - 1
            along = box[axis].within(start, stop)
            if along is not None and along.indices:
                kept = () if isinstance(data, Stacked) else (along,)
                inside.append((*box[:axis], *kept, *box[axis + 1 :]))
        yield from _arrays(part, inside)
        start = stop


class _Demand:
    """Elements that are needed of each container, from the end of the program backward."""

    def __init__(self, program: Program, concrete: Concrete) -> None:
        self.concrete = concrete
        self.containers: dict[str, Region] = defaultdict(Region)
        for container in program.containers:
            if container.role in (Role.OUTPUT, Role.PERSIST):
                self.containers[f"@{container.name}"].add(whole(concrete.type(container.type)))

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
        """Every iteration runs; where a flag may end the loop none is known to, as in a branch."""
        values = self.concrete.iterations(loop)
        if loop.until and values:
            self.forget(_written(loop.body))
            self.containers[loop.until].add(())
            return
        same = not _varies(loop)
        for value in reversed(values):
            before = self.known()
            with self.concrete.bound(loop.variable, value):
                self.blocks(loop.body)
            if same and before == self.known():
                return

    def known(self) -> dict[str, frozenset[Box]]:
        """What is needed of each container, for comparison."""
        found = {name: frozenset(region.boxes) for name, region in self.containers.items()}
        return {name: boxes for name, boxes in found.items() if boxes}

    def forget(self, names: set[str]) -> None:
        for name in names:
            self.containers.pop(name, None)

    def state(self, state: State) -> None:
        values: dict[str, Region] = defaultdict(Region)
        ops = tuple(self.concrete.typed_ops(state))
        ranges = {op.result: _range(op) for op, _ in ops if _counts_up(op)}
        for op, types in reversed(ops):
            # Before an operator that defines a container, the container is not needed for it.
            kept = self.containers if op.result.startswith("@") else values
            wanted = kept.pop(op.result, None)
            for name, found in self.needs(op, types, wanted, ranges) if wanted else ():
                (self.containers if name.startswith("@") else values)[name].merge(found)

    def needs(
        self, op: Op, types: tuple[TensorType, ...], wanted: Region, ranges: Mapping[str, range]
    ) -> Iterable[tuple[str, Region]]:
        """What an operator needs of its inputs; the regions are not to be changed."""
        if op.kind == "index_copy":
            return needs(op, types, wanted, ranges).items()
        return self.concrete.shared.named_once(
            ("needs", *wanted.boxes), op, types, lambda op, types: needs(op, types, wanted)
        )


def _counts_up(op: Op) -> bool:
    """Whether an operator gives indices of a range without gaps."""
    counts = op.kind == "iota" and not op.result.startswith("@")
    return counts and op.attr("step", 1) == 1 and op.attr("start", 0) >= 0


def _range(op: Op) -> range:
    start = int(op.attr("start", 0))
    return range(start, start + int(op.type.shape[0]))


def _written(blocks: tuple[Block, ...]) -> set[str]:
    return {op.result for op in ops_in(blocks) if op.result.startswith("@")}


def _varies(loop: Loop) -> bool:
    """Whether extents or offsets in a loop depend on its variable."""
    if mentions(loop.body, loop.variable):
        return True
    every = (one for op in ops_in(loop.body) for one in (op, *op.region))
    offsets = (op.attr(name) for op in every for name in OFFSETS.get(op.kind, ()))
    dims = (dim for found in offsets for dim in (found if isinstance(found, tuple) else (found,)))
    return loop.variable in free_symbols(*(dim for dim in dims if dim is not None))
