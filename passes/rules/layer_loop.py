"""The loop that layers become, and what goes in front of it and behind it."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.analysis.liveness import state_aliases
from dfcompiler.analysis.wiring import Repeat, updated_in_place
from dfcompiler.ir import Attrs, Block, DType, Loop, Op, Role, State, TensorType
from dfcompiler.ir.dims import symbol
from dfcompiler.ir.rewrite import live_ops
from passes.rules.copies import write_directly
from passes.rules.layers import with_common_sources
from passes.rules.stacks import Stacks

_CHEAP = ("constant", "dim", "iota")
"""Operators that a state computes again rather than read from another one."""


class LayerLoop:
    """The blocks that take the place of one state: its layers as a loop, and what is around."""

    def __init__(self, stacks: Stacks, state: State, repeat: Repeat) -> None:
        self.stacks, self.state, self.repeat = stacks, state, repeat
        self.label = stacks.fresh("layers")
        self.variable = stacks.fresh("layer").replace(".", "_")
        self.layer = repeat.layers[-1]
        self.outside = {op.result: op for op in repeat.before}
        self.views = state_aliases(state, {name: c.type for name, c in stacks.table.items()})
        numbers = [int(op.result[1:]) for op in state.ops if op.result[1:].isdigit()]
        self.number = max(numbers, default=-1)
        self.before = list(repeat.before)
        self.shared: dict[str, str] = {}

    def blocks(self) -> tuple[Block, ...]:
        """What is in front of the layers, the loop over them, and what is behind."""
        homes = self.homes()
        body = self.body(homes)
        after: list[Op] = []
        names = {self.layer[at].result: home for at, home in homes.items()}
        for op in self.repeat.after:
            self.append(after, op.renamed(names))
        self.initialize(homes)
        fresh, table = self.stacks.fresh, self.stacks.table
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
            if at in self.repeat.written:
                continue
            if op.result.startswith("@"):
                found[at] = op.result
            elif at in handed or op.result in read:
                name = f"{self.label}.carried"
                found[at] = self.stacks.add(Role.TEMP, name, op.type)
        return found

    def initialize(self, homes: dict[int, str]) -> None:
        """Writes what the first layer reads into the containers, in front of the loop."""
        done = set()
        for (at, i), position in self.repeat.carried.items():
            home = homes[position]
            value = self.repeat.layers[0][at].inputs[i]
            if home in done or value == home:
                continue
            done.add(home)
            tensor = self.layer[position].type
            self.before.append(Op(home, tensor, "copy", (self.shared.get(value, value),)))

    def body(self, homes: dict[int, str]) -> list[Op]:
        """One layer, reading its part of what is stacked, and what it hands on."""
        ops: list[Op] = []
        names = {
            self.layer[at].inputs[i]: homes[position]
            for (at, i), position in self.repeat.carried.items()
        }
        parts: dict[tuple[str, ...], str] = {}
        copies = []
        for at, op in enumerate(self.layer):
            one, written = self.named_after_all(at), self.repeat.written.get(at, ())
            in_place = bool(written) and updated_in_place(op)
            for i, name in enumerate(op.inputs):
                stacked = self.repeat.stacked.get((at, i))
                if stacked is None or (in_place and i == 0):
                    continue
                if stacked not in parts:
                    parts[stacked] = self.part_of(ops, stacked)
                names[name] = parts[stacked]
            one = one.renamed(names)
            parts.pop(written, None)
            if in_place:
                one = self.updating(one, written)
            elif written:
                one = one.with_result(self.fresh())
            elif at in homes:
                value = op.result if op.result.startswith("%") else self.fresh()
                names[op.result] = value
                copies.append(Op(homes[at], op.type, "copy", (value,), source=one.source))
                one = one.with_result(value)
            self.append(ops, one)
            if written and not in_place:
                self.write_part(ops, one, written)
        return [*ops, *copies]

    def named_after_all(self, at: int) -> Op:
        """The operator of the last layer, with sources that stand for those of all layers."""
        op, alike = self.layer[at], with_common_sources([layer[at] for layer in self.repeat.layers])
        sources = [inner.source for inner in alike.region]
        region = [replace(o, source=s) for o, s in zip(op.region, sources, strict=True)]
        return replace(op, source=alike.source, region=tuple(region))

    def updating(self, op: Op, names: tuple[str, ...]) -> Op:
        """The same update in place, of the layer's part of the stacked state."""
        container = self.stacks.of(names)
        changed = op.with_attrs(part=symbol(self.variable)).with_result(container)
        inputs = (container, *op.inputs[1:])
        return replace(changed, type=self.stacks.table[container].type, inputs=inputs)

    def write_part(self, ops: list[Op], op: Op, names: tuple[str, ...]) -> None:
        """Appends what puts a result into the layer's part of the stacked state."""
        container = self.stacks.of(names)
        place, row = self.fresh(), self.fresh()
        index = TensorType(DType.I64, (1,))
        ops.append(Op(place, index, "iota", (), Attrs({"start": symbol(self.variable)})))
        ops.append(Op(row, replace(op.type, shape=(1, *op.type.shape)), "reshape", (op.result,)))
        whole, inputs = self.stacks.table[container].type, (container, place, row)
        ops.append(Op(container, whole, "index_copy", inputs, Attrs({"axis": 0}), op.source))

    def part_of(self, ops: list[Op], names: tuple[str, ...]) -> str:
        """Appends views of the weight or the state of the layer; the name of the last one."""
        container = self.stacks.of(names)
        one, stacked = (self.stacks.table[name].type for name in (names[0], container))
        starts = (symbol(self.variable), *[0] * one.rank)
        slice_type = replace(stacked, shape=(1, *one.shape))
        row, value = self.fresh(), self.fresh()
        ops.append(Op(row, slice_type, "slice", (container,), Attrs({"starts": starts})))
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
            kept = self.stacks.add(Role.TEMP, f"{self.label}.shared", op.type)
            self.shared[name] = kept
            self.before.append(Op(kept, op.type, "copy", (name,), source=op.source))
        return self.shared[name]

    def fresh(self) -> str:
        self.number += 1
        return f"%{self.number}"
