"""The ways in which each operator can read and write its values, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from dfcompiler.analysis.layout_graph import Way
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.time_model import kernel_s
from dfcompiler.analysis.transactions import Memory
from dfcompiler.ir import DType, Layout, Op, TensorType
from dfcompiler.ir.operators import OPERATORS, OpClass

ROWS = Layout()
STRIDED_OPERANDS = {"attention": (0, 1, 2), "rotary": (0,), "index_copy": (2,), "matmul": (0, 1)}
"""Operands that a kernel reads by strides."""
STRIDED_RESULTS = ("attention", "matmul")
STRIDED_PRODUCTS = {
    "cpu": (DType.F32, DType.F64),
    "cuda": (DType.F32, DType.BF16, DType.F16),
}
"""Element types of products that read their operands by strides, by kind of target."""
ANY_AXIS_INSIDE = {"matmul": (0, 1)}
"""Operands that need not have their last axis innermost; vectors of other kernels run along it."""


@dataclass(frozen=True)
class Costs:
    """What accesses and kernels cost on a machine."""

    memory: Memory
    machine: Machine
    strided: tuple[DType, ...] = STRIDED_PRODUCTS["cpu"]

    def copy_s(self, tensor: TensorType, source: Layout, target: Layout) -> float:
        """Seconds of changing the order of a concrete tensor; none where it stays."""
        if _same_order(tensor, source, target):
            return 0.0
        return self.memory.copy_s(tensor, source, target)


@dataclass
class Candidates:
    """The layouts that each value of a state may have; row-major comes first."""

    found: dict[str, dict[Layout, None]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Layout, ...]:
        return tuple(self.found.get(name, {ROWS: None}))

    def add(self, name: str, layout: Layout) -> bool:
        """Whether the layout is new; containers keep the one that they have."""
        if name.startswith("@") or layout in self.found.setdefault(name, {ROWS: None}):
            return False
        self.found[name][layout] = None
        return True


def candidates(ops: Sequence[Op], given: Mapping[str, Layout]) -> Candidates:
    """Row-major, and every order that makes a transpose a view; containers have the one given."""
    found = Candidates({name: {layout: None} for name, layout in given.items()})
    for op in ops:
        if op.type.layout.is_tiled:
            found.found[op.result] = {op.type.layout: None}  # a part of a packed weight
    tiled = {name for name, layouts in found.found.items() if any(x.is_tiled for x in layouts)}
    transposes = [op for op in ops if _reorders(op) and tiled.isdisjoint((op.result, *op.inputs))]
    changed = True
    while changed:
        changed = False
        for op in transposes:
            (name,) = op.inputs
            perm = _permutation(op)
            for layout in found.of(name):
                changed |= found.add(op.result, seen_through(perm, layout))
            for layout in found.of(op.result):
                changed |= found.add(name, seen_before(perm, layout))
    return found


def seen_through(perm: Sequence[int], layout: Layout) -> Layout:
    """The layout of a transpose's result that is its operand's memory."""
    inverse = np.argsort(perm)
    return Layout.permuted(*(int(inverse[a]) for a in layout.permutation(len(perm))))


def seen_before(perm: Sequence[int], layout: Layout) -> Layout:
    """The layout of a transpose's operand that is its result's memory."""
    return Layout.permuted(*(int(perm[a]) for a in layout.permutation(len(perm))))


def ways(
    op: Op,
    types: tuple[TensorType, ...],
    found: Candidates,
    panels: Mapping[str, Layout],
    costs: Costs,
) -> tuple[Way, ...]:
    """Every joint layout of an operator's operands, each named once, and its result.

    Args:
        op: an operator with concrete types.
        types: of its inputs, concrete.
        found: the layouts that values may have.
        panels: for weights that this operator can read packed: the packed layout.
        costs: the machine.
    """
    if _reorders(op) and not any(t.layout.is_tiled for t in (*types, op.type)):
        return tuple(_transposes(op, found, costs))
    names = tuple(dict.fromkeys(op.inputs))
    results: tuple[Layout, ...] = (ROWS,)
    if op.type.layout.is_tiled or op.result.startswith("@"):
        results = found.of(op.result)
    elif op.kind in STRIDED_RESULTS:
        results = tuple(x for x in found.of(op.result) if _last_inside(x))
    options = [_operand(op, name, types, found, panels, costs) for name in names]
    made = []
    for layouts in product(*options):
        for result in results:
            seconds = _kernel_s(op, types, dict(zip(names, layouts, strict=True)), costs)
            if not result.is_tiled:
                seconds += costs.memory.walk_s(op.type, result, range(op.type.rank))
            made.append(Way(layouts, result, seconds))
    return tuple(made)


def _transposes(op: Op, found: Candidates, costs: Costs) -> Iterator[Way]:
    perm = _permutation(op)
    for source in found.of(op.inputs[0]):
        here = seen_through(perm, source)
        for result in found.of(op.result):
            seconds = costs.copy_s(op.type, here, result)
            if op.kind == "copy" or op.result.startswith("@"):
                seconds = costs.memory.copy_s(op.type, here, result)
            yield Way((source,), result, seconds)


def _reorders(op: Op) -> bool:
    """Whether an operator gives the elements of its operand, or a part of them, in any order."""
    if op.kind == "slice":
        return all(step == 1 for step in op.attr("steps") or ())
    return op.kind in ("transpose", "copy")


def _permutation(op: Op) -> tuple[int, ...]:
    return tuple(op.attr("perm", range(op.type.rank)))


def _operand(
    op: Op,
    name: str,
    types: tuple[TensorType, ...],
    found: Candidates,
    panels: Mapping[str, Layout],
    costs: Costs,
) -> tuple[Layout, ...]:
    """The layouts in which an operator can read a value, wherever it stands among its inputs."""
    if name in panels:
        packed_only = types[op.inputs.index(name)].dtype is DType.BF16
        return (panels[name],) if packed_only else (panels[name], ROWS)
    if name.startswith("@") or types[op.inputs.index(name)].layout.is_tiled:
        return found.of(name)
    places = [i for i, n in enumerate(op.inputs) if n == name]
    if not all(_strided(op, i, types, costs) for i in places):
        return (ROWS,)
    free = all(i in ANY_AXIS_INSIDE.get(op.kind, ()) for i in places)
    return tuple(x for x in found.of(name) if free or _last_inside(x))


def _strided(op: Op, index: int, types: tuple[TensorType, ...], costs: Costs) -> bool:
    if op.kind == "matmul":
        return all(t.dtype in costs.strided for t in types)
    if not op.region and OPERATORS[op.kind].op_class is OpClass.ELEMENTWISE:
        return types[index].rank == op.type.rank
    return index in STRIDED_OPERANDS.get(op.kind, ())


def _kernel_s(
    op: Op, types: tuple[TensorType, ...], layouts: Mapping[str, Layout], costs: Costs
) -> float:
    """Seconds of reading the operands; of a product with a packed weight, of the whole kernel."""
    tiled = {n: layout for n, layout in layouts.items() if layout.is_tiled}
    read = [
        costs.memory.walk_s(tensor, layouts[name], _walk(op, index, layouts[name], tensor))
        for index, (name, tensor) in enumerate(zip(op.inputs, types, strict=True))
        if name not in tiled and tensor.rank
    ]
    if not any(inner.kind == "matmul" for inner in op.region or (op,)):
        return sum(read)
    stored = tuple(
        replace(t, layout=tiled.get(n, t.layout)) for n, t in zip(op.inputs, types, strict=True)
    )
    return kernel_s(op, stored, costs.machine) + sum(read)


def _walk(op: Op, index: int, layout: Layout, tensor: TensorType) -> Sequence[int]:
    """The order in which an operand is walked: a product copies panels along its memory."""
    if index in ANY_AXIS_INSIDE.get(op.kind, ()):
        return layout.permutation(tensor.rank)
    return range(tensor.rank)


def _last_inside(layout: Layout) -> bool:
    return layout.is_row_major or layout.order[-1].axis == len(layout.order) - 1


def _same_order(tensor: TensorType, a: Layout, b: Layout) -> bool:
    """Whether two layouts differ by axes of one element only."""
    moved = [axis for axis, extent in enumerate(tensor.shape) if extent != 1]
    left, right = a.permutation(tensor.rank), b.permutation(tensor.rank)
    return [x for x in left if x in moved] == [x for x in right if x in moved]
