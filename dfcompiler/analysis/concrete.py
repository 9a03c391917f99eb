"""A program's types with every symbol bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import sympy

from dfcompiler.analysis.liveness import state_aliases
from dfcompiler.ir.dims import Dim, evaluate, free_symbols
from dfcompiler.ir.program import Attr, Attrs, Block, Branch, Loop, Op, Program, State
from dfcompiler.ir.types import TensorType

T = TypeVar("T")
Types = tuple[TensorType, ...]
TypedOps = tuple[tuple[Op, Types], ...]
Form = tuple[object, ...]

OFFSETS = {
    "slice": ("starts",),
    "pad": ("before", "after"),
    "index_copy": ("part",),
    "iota": ("start", "step"),
}
"""Attributes that are dimensions, one or one for each axis."""


class _Known:
    """What was found at one binding of the symbols.

    Attributes:
        extents: values of dimensions.
        types: concrete types.
        ops: concrete operators by the id of those they came from, which are kept with them.
        typed: operators of states with the types of their inputs, likewise.
    """

    def __init__(self) -> None:
        self.extents: dict[Dim, int] = {}
        self.types: dict[TensorType, TensorType] = {}
        self.ops: dict[int, tuple[Op, Op]] = {}
        self.typed: dict[tuple[int, int], tuple[object, TypedOps]] = {}


class Shared:
    """What programs that share operators have in common when they are evaluated.

    Rewrites keep most operators, and layers repeat them under other names. An object is known by
    its id for as long as this keeps it.
    """

    def __init__(self) -> None:
        self._known: dict[frozenset[tuple[str, int]], _Known] = {}
        self._views: dict[tuple[int, int], tuple[Program, State, frozenset[str]]] = {}
        self.types: dict[TensorType, TensorType] = {}
        self._forms: dict[Form, Op] = {}
        self._form_of: dict[int, tuple[Op, Op]] = {}
        self._results: dict[tuple[object, ...], Any] = {}

    def at(self, bindings: Mapping[str, int]) -> _Known:
        """What is known at one binding of the symbols."""
        return self._known.setdefault(frozenset(bindings.items()), _Known())

    def views(self, program: Program, state: State) -> frozenset[str]:
        """The values of a state that are memory of another value or of a container."""
        found = self._views.get((id(program), id(state)))
        if found is None:
            containers = {f"@{c.name}": c.type for c in program.containers}
            views = frozenset(state_aliases(state, containers))
            found = self._views[id(program), id(state)] = program, state, views
        return found[2]

    def once(
        self, key: tuple[object, ...], op: Op, types: Types, find: Callable[[Op, Types], T]
    ) -> T:
        """What `find` gives for a concrete operator, asked for once for all of its form.

        Args:
            key: names what is asked for.
            op: from a `Concrete` that shares this, as the types.
            types: of its inputs.
            find: gives it; what it does with names does not depend on what they are.
        """
        first = self._first_of_form(op)
        key = (*key, id(first), *map(id, types))
        if key not in self._results:
            self._results[key] = find(first, types)
        result: T = self._results[key]
        return result

    def named_once(
        self,
        key: tuple[object, ...],
        op: Op,
        types: Types,
        find: Callable[[Op, Types], Mapping[str, T]],
    ) -> Iterator[tuple[str, T]]:
        """Like `once`, for what is found for each input."""
        found = self.once(key, op, types, find)
        names = dict(zip(self._first_of_form(op).inputs, op.inputs, strict=True))
        return ((names[name], value) for name, value in found.items())

    def _first_of_form(self, op: Op) -> Op:
        found = self._form_of.get(id(op))
        if found is None:
            found = self._form_of[id(op)] = op, self._forms.setdefault(_form(op, {}), op)
        return found[1]


def _form(op: Op, numbers: dict[str, int]) -> Form:
    """An operator without its names; which of them are the same counts."""
    inputs = tuple(numbers.setdefault(name, len(numbers)) for name in op.inputs)
    region = tuple(_form(inner, numbers) for inner in op.region)
    result = numbers.setdefault(op.result, len(numbers))
    return op.kind, op.type, op.attrs, inputs, region, result, op.result[0]


class Concrete:
    """Evaluates extents and types at one binding of the symbols, each distinct one once."""

    def __init__(
        self, program: Program, bindings: Mapping[str, int], shared: Shared | None = None
    ) -> None:
        self.bindings = dict(bindings)
        self.program = program
        self.shared = shared or Shared()
        self._known = self.shared.at(bindings)
        self._containers = {f"@{c.name}": c.type for c in program.containers}

    @contextmanager
    def bound(self, name: str, value: int) -> Iterator[None]:
        """The same program with one symbol more, as inside a loop."""
        saved = self.bindings, self._known
        self.bindings = {**self.bindings, name: value}
        self._known = self.shared.at(self.bindings)
        try:
            yield
        finally:
            self.bindings, self._known = saved

    def extent(self, dim: Dim) -> int:
        """The value of a dimension."""
        if isinstance(dim, int):
            return dim
        found = self._known.extents.get(dim)
        if found is None:
            found = self._known.extents[dim] = evaluate(dim, self.bindings)
        return found

    def type(self, tensor: TensorType) -> TensorType:
        """A type whose extents are integers."""
        found = self._known.types.get(tensor)
        if found is None:
            one, known = tensor, all(isinstance(dim, int) for dim in tensor.shape)
            if not known:
                one = replace(tensor, shape=tuple(map(self.extent, tensor.shape)))
            found = self._known.types[tensor] = self.shared.types.setdefault(one, one)
        return found

    def op(self, op: Op) -> Op:
        """An operator whose type and offsets, and those of its region, are concrete."""
        known = self._known.ops.get(id(op))
        if known is None:
            known = self._known.ops[id(op)] = op, self._evaluated(op)
        return known[1]

    def _evaluated(self, op: Op) -> Op:
        found, attrs = self.type(op.type), self._attrs(op)
        if found is op.type and attrs is op.attrs and not op.region:
            return op
        return replace(op, type=found, attrs=attrs, region=tuple(map(self.op, op.region)))

    def _attrs(self, op: Op) -> Attrs:
        changed: dict[str, Attr] = {}
        for name in OFFSETS.get(op.kind, ()):
            found = op.attr(name)
            offsets = found if isinstance(found, tuple) else (found,)
            if any(isinstance(offset, sympy.Expr) for offset in offsets):
                known = tuple(map(self.extent, offsets))
                changed[name] = known if isinstance(found, tuple) else known[0]
        return Attrs({**op.attrs, **changed}) if changed else op.attrs

    def typed_ops(self, state: State) -> TypedOps:
        """Every operator of a state with the concrete types of its inputs."""
        key = id(self.program), id(state)
        found = self._known.typed.get(key)
        if found is None:
            kept = self.program, state
            found = self._known.typed[key] = kept, tuple(self._typed_ops(state))
        return found[1]

    def _typed_ops(self, state: State) -> Iterator[tuple[Op, Types]]:
        values: dict[str, TensorType] = {}
        for op in state.ops:
            concrete = self.op(op)
            types = tuple(
                values[name] if name in values else self.type(self._containers[name])
                for name in op.inputs
            )
            yield concrete, types
            values[op.result] = concrete.type

    def views(self, state: State) -> frozenset[str]:
        """The values of a state that are memory of another value or of a container."""
        return self.shared.views(self.program, state)

    def stored_bytes(self, tensor: TensorType) -> int:
        """Bytes of a tensor in memory."""
        return int(self.type(tensor).stored_bytes)

    def iterations(self, loop: Loop) -> range:
        """The values that a loop's variable takes when nothing ends it early."""
        return range(self.extent(loop.start), self.extent(loop.stop))


def mentions(blocks: tuple[Block, ...], variable: str) -> bool:
    """Whether an extent or an inner loop's bounds depend on a loop variable."""
    for block in blocks:
        match block:
            case State(ops=ops):
                if any(variable in free_symbols(*op.type.shape) for op in ops):
                    return True
            case Loop(start=start, stop=stop, body=body):
                if variable in free_symbols(start, stop) or mentions(body, variable):
                    return True
            case Branch(then=then, orelse=orelse):
                if mentions(then, variable) or mentions(orelse, variable):
                    return True
    return False
