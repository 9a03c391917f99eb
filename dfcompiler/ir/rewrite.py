"""Building states, and rewriting them in time linear in their size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dfcompiler.ir.dims import substitute
from dfcompiler.ir.operators import OPERATORS
from dfcompiler.ir.program import (
    Attr,
    Attrs,
    Block,
    Branch,
    Container,
    Loop,
    Op,
    Program,
    Role,
    State,
)
from dfcompiler.ir.types import DType, TensorType

UNKNOWN = TensorType(DType.F32)
"""Stands for the type of an operator until `with_inferred_type` gives the right one."""


def with_inferred_type(op: Op, types: Sequence[TensorType]) -> Op:
    """The operator with the type that its rule gives for inputs of `types`.

    Raises:
        ValueError: from the type rule.
    """
    return replace(op, type=OPERATORS[op.kind].infer(op, types))


class Builder:
    """Appends operators to a list and keeps the type of every value.

    Results are named ``%0``, ``%1``, … in order. `types` may hold containers (``@name``) first.
    """

    def __init__(self, types: Mapping[str, TensorType] | None = None, prefix: str = "%") -> None:
        self.types = dict(types or {})
        self.ops: list[Op] = []
        self.prefix = prefix

    def op(
        self,
        kind: str,
        inputs: Sequence[str] = (),
        attrs: Mapping[str, Attr] | None = None,
        *,
        type: TensorType | None = None,  # noqa: A002
        source: str = "",
        result: str = "",
        region: tuple[Op, ...] = (),
    ) -> str:
        """Appends an operator and returns the name of its result.

        Without `type` the operator's rule infers it; `reshape`, `expand`, `slice`, `constant`,
        `dim` and `iota` need it.

        Raises:
            ValueError: from the type rule.
        """
        name = result or f"{self.prefix}{len(self.ops)}"
        op = Op(name, type or UNKNOWN, kind, tuple(inputs), Attrs(attrs), source, region)
        self.append(op if type else with_inferred_type(op, [self.types[n] for n in inputs]))
        return name

    def append(self, op: Op) -> None:
        """Appends an operator that exists already."""
        self.ops.append(op)
        self.types[op.result] = op.type

    def constant(self, value: Attr, type: TensorType, source: str = "") -> str:  # noqa: A002
        """Appends a constant."""
        return self.op("constant", (), {"value": value}, type=type, source=source)


class StateRewriter:
    """A state, the producer and the users of each of its values, and a set of replacements.

    A rewrite replaces an operator by operators (the last keeps its result's name, so that no user
    changes) or forwards its result to an existing value. `finish` applies everything in one sweep
    and drops operators whose results nobody reads.

    A `%value` is always the same; a `@container` read is only equal to another one when the
    container is not written in the program (`is_stable`).
    """

    def __init__(self, program: Program, state: State) -> None:
        self.program, self.state = program, state
        self.containers = {f"@{c.name}": c for c in program.containers}
        self.producers = {op.result: op for op in state.ops if op.result.startswith("%")}
        self.positions = {id(op): i for i, op in enumerate(state.ops)}
        users: dict[str, list[Op]] = defaultdict(list)
        for op in state.ops:
            for name in dict.fromkeys(op.inputs):
                users[name].append(op)
        self._users = users
        self._replaced: dict[int, tuple[Op, ...]] = {}
        self._forwarded: dict[str, str] = {}
        self._fresh = _fresh_names(state)

    def fresh(self) -> str:
        """A value name that the state does not use."""
        return next(self._fresh)

    def type_of(self, name: str) -> TensorType:
        """The type of a value or a container."""
        if name in self.containers:
            return self.containers[name].type
        return self.producers[name].type

    def producer(self, name: str) -> Op | None:
        """The operator that defines a value of this state; None for a container."""
        return self.producers.get(name)

    def users(self, name: str) -> tuple[Op, ...]:
        """The operators that read `name`, each once."""
        return tuple(self._users.get(name, ()))

    def only_user(self, name: str) -> Op | None:
        """The operator that alone reads a value."""
        users = self._users.get(name, ())
        return users[0] if len(users) == 1 and name.startswith("%") else None

    def is_stable(self, name: str) -> bool:
        """Whether `name` means the same wherever it is read in this state."""
        if name.startswith("%"):
            return True
        return self.containers[name].role in (Role.INPUT, Role.WEIGHT)

    def weight(self, name: str) -> np.ndarray | None:
        """The values of a weight."""
        container = self.containers.get(name)
        if container is None or container.role is not Role.WEIGHT:
            return None
        return self.program.data.get(container.name)

    def scalar(self, name: str) -> Any:
        """The number that `name` holds in all its elements: a constant or a small weight."""
        op = self.producer(name)
        if op is not None and op.kind in ("expand", "reshape", "cast"):
            inner = self.scalar(op.inputs[0])
            if inner is None or op.kind != "cast":
                return inner
            return op.type.dtype.numpy.type(inner).item()
        if op is not None and op.kind == "constant":
            return _uniform(op.attr("value"))
        data = self.weight(name)
        if data is None or data.size == 0 or data.size > 4096:
            return None
        data = np.asarray(data)
        first = data.reshape(-1)[0]
        same = bool(np.all(data == first)) or bool(np.all(np.isnan(data)))
        return first.item() if same else None

    def replace(self, op: Op, ops: Sequence[Op]) -> None:
        """Puts `ops` in the place of `op`; the last one must have its result and its type."""
        if ops[-1].result != op.result:
            raise ValueError(f"the replacement gives {ops[-1].result}, not {op.result}")
        self._replaced[id(op)] = tuple(ops)

    def forward(self, op: Op, value: str) -> None:
        """Lets every reader of `op` read `value`; `op` must define a ``%value``."""
        if not op.result.startswith("%"):
            raise ValueError(f"{op.result} is a container and cannot be forwarded")
        self._forwarded[op.result] = value

    def finish(self) -> State:
        """The rewritten state; the same object when nothing changed."""
        if not self._replaced and not self._forwarded:
            return self.state
        final = {name: self._resolve(name) for name in self._forwarded}
        ops: list[Op] = []
        for op in self.state.ops:
            if op.result in final:
                continue
            ops += (o.renamed(final) for o in self._replaced.get(id(op), (op,)))
        return replace(self.state, ops=live_ops(ops))

    def _resolve(self, name: str) -> str:
        while name in self._forwarded:
            name = self._forwarded[name]
        return name


def _uniform(value: Attr) -> float | int | bool | None:
    """The number that all leaves of nested tuples equal."""
    if not isinstance(value, tuple):
        return value if isinstance(value, int | float) else None
    leaves = {_uniform(part) for part in value}
    return leaves.pop() if len(leaves) == 1 else None


def _fresh_names(state: State) -> Iterator[str]:
    numbers = [int(op.result[1:]) for op in state.ops if op.result[1:].isdigit()]
    number = max(numbers, default=-1)
    while True:
        number += 1
        yield f"%{number}"


def live_ops(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The operators that a container written in the same list depends on."""
    needed: set[str] = set()
    kept: list[Op] = []
    for op in reversed(ops):
        if op.result.startswith("%") and op.result not in needed:
            continue
        needed.update(op.inputs)
        kept.append(op)
    return tuple(reversed(kept))


def map_states(program: Program, function: Callable[[State], State]) -> Program:
    """The program with `function` applied to each state; itself when no state changed."""
    body = _map_blocks(program.body, function)
    return program if body is program.body else replace(program, body=body)


def _map_blocks(blocks: tuple[Block, ...], function: Callable[[State], State]) -> tuple[Block, ...]:
    mapped = tuple(_map_block(block, function) for block in blocks)
    return blocks if all(a is b for a, b in zip(mapped, blocks, strict=True)) else mapped


def _map_block(block: Block, function: Callable[[State], State]) -> Block:
    match block:
        case State():
            return function(block)
        case Loop():
            body = _map_blocks(block.body, function)
            return block if body is block.body else replace(block, body=body)
        case Branch():
            then = _map_blocks(block.then, function)
            orelse = _map_blocks(block.orelse, function)
            if then is block.then and orelse is block.orelse:
                return block
            return replace(block, then=then, orelse=orelse)


def rewrite_states(program: Program, rule: Callable[[StateRewriter], None]) -> Program:
    """Applies `rule` to a rewriter of each state."""

    def rewritten(state: State) -> State:
        rewriter = StateRewriter(program, state)
        rule(rewriter)
        return rewriter.finish()

    return map_states(program, rewritten)


def with_weights(program: Program, new: Mapping[str, np.ndarray]) -> Program:
    """The program with weights added."""
    if not new:
        return program
    added = tuple(
        Container(Role.WEIGHT, name, TensorType(DType.of(array.dtype), array.shape))
        for name, array in new.items()
    )
    return replace(program, containers=program.containers + added, data={**program.data, **new})


def read_containers(program: Program) -> set[str]:
    """Names of the containers that an operator, a loop or a branch reads."""
    names = {name[1:] for op in program.ops() for name in op.inputs if name.startswith("@")}
    for block in program.blocks():
        match block:
            case Loop(until=until) if until:
                names.add(until.removeprefix("@"))
            case Branch(condition=condition):
                names.add(condition.removeprefix("@"))
    return names


def drop_unused_weights(program: Program) -> Program:
    """The program without weights that nothing reads."""
    used = read_containers(program)
    kept = tuple(c for c in program.containers if c.role is not Role.WEIGHT or c.name in used)
    if len(kept) == len(program.containers):
        return program
    names = {container.name for container in kept}
    data = {name: array for name, array in program.data.items() if name in names}
    return replace(program, containers=kept, data=data)


def substitute_symbols(ops: Iterable[Op], values: Mapping[str, object]) -> tuple[Op, ...]:
    """Operators with symbols replaced by dimensions, in types, attributes and regions."""

    def attr(value: Attr) -> Attr:
        if isinstance(value, tuple):
            return tuple(map(attr, value))
        return substitute(value, values) if hasattr(value, "free_symbols") else value

    def one(op: Op) -> Op:
        shape = tuple(substitute(dim, values) for dim in op.type.shape)
        return replace(
            op,
            type=replace(op.type, shape=shape),
            attrs=Attrs({key: attr(value) for key, value in op.attrs.items()}),
            region=tuple(map(one, op.region)),
        )

    return tuple(map(one, ops))
