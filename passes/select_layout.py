"""Choose the order in memory of all values together, and which weights are packed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.analysis.layout_graph import Operator, Problem, Solution, Way, solve
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.transactions import Memory
from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.ir import Attrs, DType, Layout, Loop, Op, Program, State, TensorType
from dfcompiler.ir.rewrite import live_ops, map_states
from dfcompiler.pipeline import Chosen, Decline, Pass, default_probes
from dfcompiler.target import CpuTarget, Target
from passes.pack_weights import packable, panel_layouts, right_operands
from passes.rules.layout_ways import ROWS, STRIDED_PRODUCTS, Costs, candidates, ways

NAIVE = "all row-major"


@dataclass(frozen=True)
class SelectLayout(Pass):
    """Gives values other physical orders, so that transposes become views where that pays.

    ::

        %2: f32[B, 12, S, 32] = transpose %1            # %1: f32[B, S, 12, 32]
        %3: f32[B, 12, S, 32] = attention %2, …
        %4: f32[B, S, 12, 32] = transpose %3

                ──▶     %2: f32[B, 12, S, 32; 0 2 1 3] = transpose %1
                        %3: f32[B, 12, S, 32; 0 2 1 3] = attention %2, …
                        %4: f32[B, S, 12, 32] = transpose %3

    A shortest path in the configuration graph of each state decides (`analysis.layout_graph`):
    every operator with the layouts that its kernel can read and write, the costs from the
    transactions that these take on the target. Values that several operators read, residual
    connections among them, have one layout or pay for a copy. A product may read its weight in
    panels or as it is; one that is faster unpacked gets `packed = false`, which `pack-weights`
    obeys.

    Skips states that would need too large a graph. Containers keep their layout.
    """

    target: Target | None = None
    memory: Memory | None = None

    name: ClassVar[str] = "select-layout"
    # A copy into another order is an operator more, and a value more.
    claims: ClassVar[tuple[str, ...]] = (
        "flops ==",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        return self.decide(program, decline)[0]

    def decide(self, program: Program, decline: Decline) -> tuple[Program, tuple[Chosen, ...]]:
        """For every operator that could be done otherwise: how it is, what else, and the price."""
        solver = _Solver(self, program)
        chosen: list[Chosen] = []

        def rewritten(state: State) -> State:
            try:
                solution = solver.solution(state)
            except UnsupportedError as error:
                decline(state.ops[0], error.message)
                return state
            if solution is None:
                return state
            for op, reason in solver.moved(state, solution):
                decline(op, reason)
            chosen.extend(_described(state, solution))
            return _apply(state, solution, solver.types, bool(solver.panels))

        return map_states(program, rewritten), tuple(chosen)


class _Solver:
    """The layout problem of each state of a program, at typical sizes."""

    def __init__(self, options: SelectLayout, program: Program) -> None:
        if options.target is None:
            raise UsageError("select-layout needs a target: it compares costs on a machine")
        machine = Machine.nominal(options.target)
        strided = STRIDED_PRODUCTS[options.target.kind]
        self.costs = Costs(options.memory or Memory.nominal(machine), machine, strided)
        self.panels: dict[str, Layout] = {}
        if isinstance(options.target, CpuTarget):
            self.panels = _panels(program, options.target)
        sizes = dict(default_probes(program)[-1])
        loops = (block for block in program.blocks() if isinstance(block, Loop))
        self.concrete = Concrete(program, sizes)
        for loop in loops:
            # Outer loops come before inner ones, whose bounds may depend on them.
            sizes[loop.variable] = max(0, self.concrete.extent(loop.stop) - 1)
            self.concrete = Concrete(program, sizes)
        self.types = {f"@{c.name}": c.type for c in program.containers}
        self.given = {name: tensor.layout for name, tensor in self.types.items()}

    def solution(self, state: State) -> Solution | None:
        """The cheapest layouts; None where nothing can be chosen."""
        found = candidates(state.ops, self.given)
        concrete: dict[str, TensorType] = {}
        operators: list[Operator] = []
        for op, (bound, types) in zip(state.ops, self.concrete.typed_ops(state), strict=True):
            panels = {n: self.panels[n] for n in right_operands(op) if n in self.panels}
            made = ways(bound, types, found, panels, self.costs)
            concrete |= {**dict(zip(op.inputs, types, strict=True)), op.result: bound.type}
            operators.append(Operator(op.result, tuple(dict.fromkeys(op.inputs)), made))
        if all(len(operator.ways) == 1 for operator in operators):
            return None

        def conversion_s(name: str, source: object, target: object) -> float:
            if name.startswith("@"):
                return 0.0  # a weight is stored in every layout in which it is read
            assert isinstance(source, Layout)
            assert isinstance(target, Layout)
            # A little more than the same copy by a transpose, which needs no operator of its own.
            return self.costs.copy_s(concrete[name], source, target) * (1 + 1e-6)

        return solve(Problem(tuple(operators), self.given, {}, conversion_s))

    def moved(self, state: State, solution: Solution) -> Iterator[tuple[Op, str]]:
        """The transposes that stay copies, and what it would cost to do without."""
        for op, step in zip(state.ops, solution.steps, strict=True):
            if op.kind != "transpose" or not step.way.seconds:
                continue
            if not step.others:
                yield op, "its operand and its result are read in row-major order only"
                continue
            way, price = step.others[0]
            yield op, f"a copy is cheapest: {_text(op, way)} would cost {price * 1e6:.3g} µs more"


def _panels(program: Program, target: CpuTarget) -> dict[str, Layout]:
    """The panels in which each weight can be packed."""
    layouts, table = panel_layouts(target), program.table()
    return {
        f"@{name}": layouts.get(table[name].type.dtype, layouts[DType.F32])
        for name in packable(program)
    }


def _apply(
    state: State, solution: Solution, containers: Mapping[str, TensorType], packs: bool
) -> State:
    """The state with the chosen layouts, and copies where a value is needed in two."""
    copies: dict[tuple[str, object], str] = {}
    types = dict(containers)
    ops: list[Op] = []
    fresh = _fresh(state)
    for op, step in zip(state.ops, solution.steps, strict=True):
        for made in step.conversions:
            if made.value.startswith("@"):
                continue
            name = copies[made.value, made.target] = next(fresh)
            source = copies.get((made.value, made.source), made.value)
            assert isinstance(made.target, Layout)
            kind = replace(types[made.value], layout=made.target)
            ops.append(Op(name, kind, "copy", (source,), Attrs(), op.source))
        operands = dict(zip(dict.fromkeys(op.inputs), step.way.operands, strict=True))
        op = op.renamed({n: copies[n, x] for n, x in operands.items() if (n, x) in copies})
        if packs and any(n.startswith("@") and operands[n] == ROWS for n in right_operands(op)):
            op = _unpacked(op, containers)
        result = step.way.result
        if not op.result.startswith("@") and result != op.type.layout:
            assert isinstance(result, Layout)
            op = replace(op, type=replace(op.type, layout=result))
        types[op.result] = op.type
        ops.append(op)
    same = len(ops) == len(state.ops) and all(map(Op.__eq__, ops, state.ops))
    return state if same else replace(state, ops=live_ops(ops))


def _unpacked(op: Op, containers: Mapping[str, TensorType]) -> Op:
    """The product with a mark that its weight stays as it is."""
    matrices = [n for n in right_operands(op) if containers[n].rank == 2]
    return op.with_attrs(packed=False) if matrices else op


def _fresh(state: State) -> Iterator[str]:
    taken = {op.result for op in state.ops}
    number = 0
    while True:
        if f"%copy{number}" not in taken:
            yield f"%copy{number}"
        number += 1


def _described(state: State, solution: Solution) -> Iterator[Chosen]:
    for op, step in zip(state.ops, solution.steps, strict=True):
        if not step.others:
            continue
        other, price = step.others[0]
        naive = [s for way, s in step.others if _text(op, way) == NAIVE]
        chosen = _text(op, step.way)
        yield Chosen(op, chosen, _text(op, other), price, 0.0 if chosen == NAIVE else naive[0])


def _text(op: Op, way: Way) -> str:
    names = dict.fromkeys(op.inputs)
    shown = [f"{n} {_order(x)}" for n, x in zip(names, way.operands, strict=True) if x != ROWS]
    shown += [f"result {_order(way.result)}"] if way.result != ROWS else []
    return ", ".join(shown) or NAIVE


def _order(layout: object) -> str:
    return "row-major" if layout == ROWS else f"[{layout}]"
