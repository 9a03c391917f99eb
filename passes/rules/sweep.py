"""One forward sweep over a state that brings every operator into its simplest form.

Operators are visited in order, so the inputs of each are already simple; a rule looks at the
producers of its operator's inputs only. That makes one sweep enough, and linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from dfcompiler.errors import InternalError
from dfcompiler.ir import OPERATORS, Attr, Attrs, Op, Program, Role, State, TensorType
from dfcompiler.ir.dims import Shape
from dfcompiler.ir.rewrite import live_ops
from passes.rules.copies import write_directly

Number: TypeAlias = "int | float | bool"
Rule: TypeAlias = "Callable[[Sweep, Op], Op | str | None]"
"""A rule gives a simpler operator with the same result, or the value that already holds the
result, or None."""

RULE_LIMIT = 64
"""More steps than this on one operator mean that two rules undo each other."""

INDEX_WEIGHT_LIMIT = 1 << 16
"""Elements of the largest weight of integers whose values rules look at."""


class Sweep:
    """The operators of a state rewritten so far, their types, and what replaces what."""

    def __init__(self, program: Program, state: State, rules: Mapping[str, Sequence[Rule]]) -> None:
        self.state, self.rules = state, rules
        self.program = program
        self.containers = {f"@{c.name}": c for c in program.containers}
        self.types = {name: c.type for name, c in self.containers.items()}
        self.ops: list[Op] = []
        self._producers: dict[str, Op] = {}
        self._names: dict[str, str] = {}
        self._uniform: dict[str, Number | None] = {}
        self._scalars: dict[tuple[object, ...], str] = {}
        self._written = {op.result for op in state.ops if op.result.startswith("@")}
        self._versions: dict[str, int] = {}
        self._read_versions: dict[str, tuple[int, ...]] = {}
        self._number = 1 + max(
            (int(op.result[1:]) for op in state.ops if op.result[1:].isdigit()), default=-1
        )

    def run(self) -> State:
        """The state with every operator simplified; the same object when nothing changed."""
        for op in self.state.ops:
            self._visit(op)
        ops = write_directly(live_ops(self.ops), self.containers)
        same = len(ops) == len(self.state.ops) and all(map(_is, ops, self.state.ops))
        return self.state if same else replace(self.state, ops=ops)

    # What rules look at.

    def producer(self, name: str, *kinds: str) -> Op | None:
        """The operator of one of `kinds` (any, if none) that defines a value.

        None too where its inputs must not be read any more, because a container among them has
        been written since.
        """
        op = self._producers.get(name)
        if op is None or (kinds and op.kind not in kinds):
            return None
        return op if self._read_versions[name] == self._current(op) else None

    def type_of(self, name: str) -> TensorType:
        """The type of a value or container."""
        return self.types[name]

    def shape_of(self, name: str) -> Shape:
        """The shape of a value or container."""
        return self.types[name].shape

    def scalar(self, name: str) -> Number | None:
        """The number that all elements of a value have, where it is known."""
        op = self._producers.get(name)
        if op is not None:
            value = op.attr("value") if op.kind == "constant" else None
            return value if isinstance(value, int | float) else None
        data = self.index_weight(name)
        if data is None:
            data = self.weight(name)
            return None if data is None or data.shape else _item(data)
        if name not in self._uniform:
            same = data.size > 0 and bool((data == data.flat[0]).all())
            self._uniform[name] = data.flat[0].item() if same else None
        return self._uniform[name]

    def weight(self, name: str) -> np.ndarray | None:
        """The values of a weight."""
        container = self.containers.get(name)
        known = container is not None and container.role is Role.WEIGHT
        return self.program.data.get(name[1:]) if known else None

    def index_weight(self, name: str) -> np.ndarray | None:
        """The values of a weight of integers or truth values small enough to look at."""
        data = self.weight(name)
        small = data is not None and data.dtype.kind in "iub" and data.size <= INDEX_WEIGHT_LIMIT
        return data if small else None

    def is_fixed(self, name: str) -> bool:
        """Whether `name` means the same until the end of the state."""
        return name.startswith("%") or name not in self._written

    # What rules build.

    def constant(self, value: Number, like: TensorType) -> str:
        """A rank-0 constant of the element type of `like`; equal ones are one operator."""
        key = (like.dtype, type(value), value.hex() if isinstance(value, float) else value)
        if key not in self._scalars:
            scalar = TensorType(like.dtype)
            self._scalars[key] = self._append(
                Op(self._fresh(), scalar, "constant", (), Attrs({"value": value}))
            )
        return self._scalars[key]

    def emit(
        self,
        kind: str,
        inputs: Sequence[str],
        attrs: Mapping[str, Attr] | None = None,
        *,
        shape: Shape | None = None,
        tensor: TensorType | None = None,
        source: str = "",
    ) -> str:
        """The name of a new operator's value, itself simplified.

        The operator's rule infers the type, unless `tensor` gives it, or `shape`, with the element
        type of the first input.
        """
        if tensor is None:
            tensor = TensorType(self.types[inputs[0]].dtype, shape or ())
            if shape is None:
                draft = Op("", tensor, kind, tuple(inputs), Attrs(attrs))
                tensor = OPERATORS[kind].infer(draft, [self.types[n] for n in inputs])
        op = Op(self._fresh(), tensor, kind, tuple(inputs), Attrs(attrs), source)
        self._visit(op)
        return self._names.get(op.result, op.result)

    # How it works.

    def _visit(self, op: Op) -> None:
        op = op.renamed(self._names)
        for _ in range(RULE_LIMIT):
            found = self._step(op)
            if found is None:
                self._append(op)
                return
            if isinstance(found, str):
                self._forward(op, found)
                return
            op = found
        raise InternalError(f"the rules for {op.kind} {op.result} do not come to an end")

    def _step(self, op: Op) -> Op | str | None:
        for rule in self.rules.get(op.kind, ()):
            found = rule(self, op)
            if found is not None:
                return found
        return None

    def _forward(self, op: Op, value: str) -> None:
        if op.result.startswith("%") and self.is_fixed(value):
            self._names[op.result] = value
            return
        self._append(replace(op, kind="copy", inputs=(value,), attrs=Attrs(), region=()))

    def _append(self, op: Op) -> str:
        self.ops.append(op)
        self.types[op.result] = op.type
        if op.result.startswith("%"):
            self._producers[op.result] = op
            self._read_versions[op.result] = self._current(op)
        else:
            self._versions[op.result] = self._versions.get(op.result, 0) + 1
        return op.result

    def _current(self, op: Op) -> tuple[int, ...]:
        return tuple(self._versions.get(name, 0) for name in op.inputs)

    def _fresh(self) -> str:
        self._number += 1
        return f"%{self._number - 1}"


def _is(a: object, b: object) -> bool:
    return a is b


def as_kind(op: Op, kind: str, *inputs: str, **attrs: Attr) -> Op:
    """Another operator with the result, the type and the source of `op`."""
    return replace(op, kind=kind, inputs=inputs, attrs=Attrs(attrs), region=())


def as_constant(op: Op, value: Number) -> Op:
    """A constant with the result and the type of `op`."""
    return as_kind(op, "constant", value=value)


def evaluate_scalar(op: Op, values: Sequence[Number], types: Sequence[TensorType]) -> Number:
    """An element-wise operator applied to numbers in the precision of its inputs."""
    arrays = [np.asarray(v, t.dtype.numpy) for v, t in zip(values, types, strict=True)]
    with np.errstate(all="ignore"):
        found = OPERATORS[op.kind].reference(op, arrays, {})
    return _item(np.asarray(found, op.type.dtype.numpy))


def _item(array: np.ndarray) -> Number:
    """A Python number; bfloat16 has no items of its own."""
    plain = array if array.dtype.kind in "iub" else array.astype(np.float64)
    number: Number = plain.item()
    return number
