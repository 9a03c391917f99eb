"""Make one loop of the layers of a model: code for one layer, weights stacked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from dfcompiler.analysis.liveness import state_aliases
from dfcompiler.analysis.repeats import Repeat, find_repeat
from dfcompiler.ir import Attrs, Block, Branch, Container, Loop, Op, Program, Role, State
from dfcompiler.ir.dims import symbol
from dfcompiler.ir.rewrite import drop_unused_weights, live_ops
from dfcompiler.ir.stacked import stack
from dfcompiler.ir.types import Dense, TensorType
from dfcompiler.pipeline import Decline, Pass
from passes.rules.copies import write_directly
from passes.rules.layers import common_name, stacked_type, with_common_sources

_CHEAP = ("constant", "dim", "iota")
"""Operators that a state computes again rather than read from another one."""


@dataclass(frozen=True)
class RollLayers(Pass):
    """Turns a chain of equal layers into a loop over their stacked weights.

    ::

        %0 = exp @x                        state main { @layers.carried = exp @x }
        %1 = matmul %0, @w.0               loop layers for layer in 0..3 { state layers.body {
        %2 = tanh %1                         %7 = slice @w.* {starts = [layer, 0, 0]}
        %3 = matmul %2, @w.1         ──▶     %8 = reshape %7
        %4 = tanh %3                         %5 = matmul @layers.carried, %8
        %5 = matmul %4, @w.2                 @layers.carried = tanh %5 } }
        %6 = tanh %5                       state main.end { @y = neg @layers.carried }
        @y = neg %6

    What a layer hands to the next one is in a container: the output itself where the last layer
    writes one. The slices are views, so that nothing is copied; weights are put together when they
    are written. Layers are found by their graph (`analysis/repeats.py`), whatever they are called.

    Skips layers that differ, fewer than three of them, layers whose results are read elsewhere, and
    weights that something outside of the loop reads too.
    """

    name: ClassVar[str] = "roll-layers"
    claims: ClassVar[tuple[str, ...]] = ("flops ==", "weight_bytes ==")

    def run(self, program: Program, decline: Decline) -> Program:
        rolling = _Rolling(program, decline)
        body = rolling.blocks(program.body)
        if not rolling.changed:
            return program
        data = {**program.data, **rolling.data}
        rolled = replace(program, body=body, containers=tuple(rolling.table.values()), data=data)
        return drop_unused_weights(rolled)


@dataclass
class _Rolling:
    """Containers and names of the program while its states become loops."""

    program: Program
    decline: Decline
    data: dict[str, np.ndarray] = field(default_factory=dict)
    changed: bool = False

    def __post_init__(self) -> None:
        program = self.program
        self.table = {f"@{c.name}": c for c in program.containers}
        blocks = list(program.blocks())
        self.taken = {c.name for c in program.containers} | {block.name for block in blocks}
        self.taken |= {s.name for s in program.symbols}
        self.taken |= {block.variable for block in blocks if isinstance(block, Loop)}
        self.readers = Counter(name for op in program.ops() for name in set(op.inputs))

    def blocks(self, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(new for block in blocks for new in self.block(block))

    def block(self, block: Block) -> tuple[Block, ...]:
        match block:
            case Loop():
                return (replace(block, body=self.blocks(block.body)),)
            case Branch():
                then, orelse = self.blocks(block.then), self.blocks(block.orelse)
                return (replace(block, then=then, orelse=orelse),)
            case State():
                return self.state(block)

    def state(self, state: State) -> tuple[Block, ...]:
        found = find_repeat(state, self.table)
        if isinstance(found, Repeat):
            found = self.obstacle(found) or found
        if isinstance(found, Repeat):
            self.changed = True
            return _Loop(self, state, found).blocks()
        if state.ops:
            self.decline(state.ops[-1], found)
        return (state,)

    def obstacle(self, repeat: Repeat) -> str:
        """Why the weights of the layers cannot be stacked; empty if they can."""
        sites: dict[tuple[str, ...], set[int]] = {}
        for (at, _), names in repeat.stacked.items():
            sites.setdefault(names, set()).add(at)
        stacked = Counter(name for names in sites for name in names)
        for names, readers in sites.items():
            for name in names:
                if stacked[name] > 1 or self.readers[name] > len(readers):
                    return f"{name} is read elsewhere too and would be stored twice"
                if not isinstance(self.table[name].type.encoding, Dense):
                    return f"{name} is stored as {self.table[name].type}"
        return ""

    def fresh(self, name: str) -> str:
        """A name for a container, a block or a variable that nothing has yet."""
        candidate, number = name, 1
        while candidate in self.taken:
            number += 1
            candidate = f"{name}.{number}"
        self.taken.add(candidate)
        return candidate

    def container(self, role: Role, name: str, tensor: TensorType) -> str:
        container = Container(role, self.fresh(name), tensor)
        self.table[f"@{container.name}"] = container
        return f"@{container.name}"


class _Loop:
    """The blocks that take the place of one state."""

    def __init__(self, rolling: _Rolling, state: State, repeat: Repeat) -> None:
        self.rolling, self.state, self.repeat = rolling, state, repeat
        self.label = rolling.fresh("layers")
        self.variable = rolling.fresh("layer").replace(".", "_")
        self.layer = repeat.layers[-1]
        self.outside = {op.result: op for op in repeat.before}
        self.views = state_aliases(state, {name: c.type for name, c in rolling.table.items()})
        numbers = [int(op.result[1:]) for op in state.ops if op.result[1:].isdigit()]
        self.number = max(numbers, default=-1)
        self.before = list(repeat.before)
        self.shared: dict[str, str] = {}

    def blocks(self) -> tuple[Block, ...]:
        homes = self.homes()
        body = self.body(homes)
        after: list[Op] = []
        names = {self.layer[at].result: home for at, home in homes.items()}
        for op in self.repeat.after:
            self.append(after, op.renamed(names))
        self.initialize(homes)
        fresh, table = self.rolling.fresh, self.rolling.table
        first = State(self.state.name, live_ops(write_directly(self.before, table)))
        inner = State(fresh(f"{self.label}.body"), write_directly(body, table))
        count = len(self.repeat.layers)
        loop = Loop(self.label, self.variable, 0, count, (inner,))
        last = State(fresh(f"{self.state.name}.end"), tuple(after))
        return tuple(b for b in (first, loop, last) if not (isinstance(b, State) and not b.ops))

    def homes(self) -> dict[int, str]:
        """Containers of the results that the next layer or the operators behind them read."""
        read = {name for op in self.repeat.after for name in op.inputs}
        handed = set(self.repeat.carried.values())
        found = {}
        for at, op in enumerate(self.layer):
            if op.result.startswith("@"):
                found[at] = op.result
            elif at in handed or op.result in read:
                name = f"{self.label}.carried"
                found[at] = self.rolling.container(Role.TEMP, name, op.type)
        return found

    def initialize(self, homes: dict[int, str]) -> None:
        """Writes what the first layer reads into the containers, in front of the loop."""
        done = set()
        for (at, i), position in self.repeat.carried.items():
            home = homes[position]
            if home in done:
                continue
            done.add(home)
            value = self.repeat.layers[0][at].inputs[i]
            tensor = self.layer[position].type
            self.before.append(Op(home, tensor, "copy", (self.shared.get(value, value),)))

    def body(self, homes: dict[int, str]) -> list[Op]:
        """One layer, reading slices of the stacked weights, and what it hands on."""
        ops: list[Op] = []
        names = {
            self.layer[at].inputs[i]: homes[position]
            for (at, i), position in self.repeat.carried.items()
        }
        slices: dict[tuple[str, ...], str] = {}
        copies = []
        for at, op in enumerate(self.layer):
            for i in range(len(op.inputs)):
                stacked = self.repeat.stacked.get((at, i))
                if stacked is not None:
                    if stacked not in slices:
                        slices[stacked] = self.slice_of(ops, stacked)
                    names[op.inputs[i]] = slices[stacked]
            alike = with_common_sources([layer[at] for layer in self.repeat.layers])
            one = replace(op, source=alike.source)
            if op.region:
                sources = [inner.source for inner in alike.region]
                region = [replace(o, source=s) for o, s in zip(op.region, sources, strict=True)]
                one = replace(one, region=tuple(region))
            one = one.renamed(names)
            if at in homes:
                value = op.result if op.result.startswith("%") else self.fresh()
                names[op.result] = value
                copies.append(Op(homes[at], op.type, "copy", (value,), source=one.source))
                one = one.with_result(value)
            self.append(ops, one)
        return [*ops, *copies]

    def slice_of(self, ops: list[Op], names: tuple[str, ...]) -> str:
        """Appends views of the weight of the layer; the name of the last one."""
        rolling, count = self.rolling, len(names)
        one = rolling.table[names[0]].type
        stacked = stacked_type(one, count)
        label = common_name([name[1:] for name in names])
        container = rolling.container(Role.WEIGHT, label, stacked)
        parts = [rolling.program.data.get(name[1:]) for name in names]
        if all(part is not None for part in parts):
            rolling.data[container[1:]] = stack([part for part in parts if part is not None])
        starts = (symbol(self.variable), *[0] * one.rank)
        part = replace(stacked, shape=(1, *one.shape))
        row, value = self.fresh(), self.fresh()
        ops.append(Op(row, part, "slice", (container,), Attrs({"starts": starts})))
        ops.append(Op(value, one, "reshape", (row,)))
        return value

    def append(self, ops: list[Op], op: Op) -> None:
        """Appends an operator, reading what stands in front of the loop from where it is kept."""
        here = {o.result for o in ops}
        names = {name: self.from_outside(ops, name, here) for name in op.inputs}
        ops.append(op.renamed({name: new for name, new in names.items() if name != new}))

    def from_outside(self, ops: list[Op], name: str, here: set[str]) -> str:
        """What a state of its own reads for a value of the state in front of the loop."""
        op = self.outside.get(name)
        if op is None or name in here or name.startswith("@"):
            return name
        if name in self.views or op.kind in _CHEAP:
            self.append(ops, op)
            here.add(name)
            return name
        if name not in self.shared:
            kept = self.rolling.container(Role.TEMP, f"{self.label}.shared", op.type)
            self.shared[name] = kept
            self.before.append(Op(kept, op.type, "copy", (name,), source=op.source))
        return self.shared[name]

    def fresh(self) -> str:
        self.number += 1
        return f"%{self.number}"
