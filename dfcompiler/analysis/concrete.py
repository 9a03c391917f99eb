"""A program's types with every symbol bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import sympy

from dfcompiler.analysis.liveness import state_aliases
from dfcompiler.ir.dims import Dim, evaluate, free_symbols
from dfcompiler.ir.program import Attr, Attrs, Block, Branch, Loop, Op, Program, State
from dfcompiler.ir.types import TensorType

OFFSETS = {
    "slice": ("starts",),
    "pad": ("before", "after"),
    "index_copy": ("part",),
    "iota": ("start", "step"),
}
"""Attributes that are dimensions, one or one for each axis."""


class Concrete:
    """Evaluates extents and types at one binding of the symbols, each distinct one once."""

    def __init__(self, program: Program, bindings: Mapping[str, int]) -> None:
        self.bindings = dict(bindings)
        self.program = program
        self._extents: dict[Dim, int] = {}
        self._types: dict[TensorType, TensorType] = {}
        self._views: dict[int, frozenset[str]] = {}
        self._containers = {f"@{c.name}": c.type for c in program.containers}

    @contextmanager
    def bound(self, name: str, value: int) -> Iterator[None]:
        """The same program with one symbol more, as inside a loop."""
        saved = self.bindings, self._extents, self._types
        self.bindings = {**self.bindings, name: value}
        self._extents, self._types = {}, {}
        try:
            yield
        finally:
            self.bindings, self._extents, self._types = saved

    def extent(self, dim: Dim) -> int:
        """The value of a dimension."""
        if isinstance(dim, int):
            return dim
        found = self._extents.get(dim)
        if found is None:
            found = self._extents[dim] = evaluate(dim, self.bindings)
        return found

    def type(self, tensor: TensorType) -> TensorType:
        """A type whose extents are integers."""
        if all(isinstance(dim, int) for dim in tensor.shape):
            return tensor
        found = self._types.get(tensor)
        if found is None:
            found = replace(tensor, shape=tuple(map(self.extent, tensor.shape)))
            self._types[tensor] = found
        return found

    def op(self, op: Op) -> Op:
        """An operator whose type and offsets, and those of its region, are concrete."""
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

    def typed_ops(self, state: State) -> Iterator[tuple[Op, tuple[TensorType, ...]]]:
        """Every operator of a state with the concrete types of its inputs."""
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
        found = self._views.get(id(state))
        if found is None:
            # The program holds the state, so that its id stays its own.
            found = self._views[id(state)] = frozenset(state_aliases(state, self._containers))
        return found

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
