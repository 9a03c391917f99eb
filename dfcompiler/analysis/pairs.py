"""Pairs of elements of the last axis: how values are split into them, joined, and doubled."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dfcompiler.ir.dims import Dim, Shape, equal, expand, floor_div, same_shape
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import MismatchError
from dfcompiler.ir.program import Op, Program
from dfcompiler.ir.rewrite import StateRewriter
from dfcompiler.ir.types import TensorType


@dataclass(frozen=True)
class Pairs:
    """Pairs of elements of the last axis of `value`, in ``start : start + width``.

    A pair is an element of each half, or two neighbours when `interleaved`.
    """

    value: str
    start: Dim
    width: Dim
    interleaved: bool

    def are_all_of(self, state: StateRewriter, name: str) -> bool:
        """Whether `name` is exactly these elements."""
        full = state.type_of(self.value).shape[-1]
        if name == self.value:
            return equal(self.start, 0) and equal(self.width, full)
        found = _part(state, name)
        return found == _Part(self.value, self.start, 1, self.width)


@dataclass(frozen=True)
class _Part:
    """The elements ``start + step · i`` of the last axis of `value`, for i below `size`."""

    value: str
    start: Dim
    step: int
    size: Dim


@dataclass(frozen=True)
class Joined:
    """A value whose pairs come from two values: halves in a row, or interleaved."""

    first: str
    second: str
    interleaved: bool


def pairs_of(state: StateRewriter, first: str, second: str) -> Pairs | None:
    """The pairs whose first elements are `first` and whose second ones are `second`."""
    a, b = _part(state, first), _part(state, second)
    if a is None or b is None or not state.is_stable(a.value):
        return None
    interleaved = a.step == 2
    distance = 1 if interleaved else a.size
    if b != _Part(a.value, expand(a.start + distance), a.step, a.size):
        return None
    return Pairs(a.value, a.start, 2 * a.size, interleaved)


def _part(state: StateRewriter, name: str) -> _Part | None:
    """What `name` is a part of, a trailing axis of extent 1 ignored."""
    op = state.producer(_squeezed(state, name))
    if op is None or op.kind != "slice":
        return None
    (x,), shape = op.inputs, state.type_of(op.inputs[0]).shape
    *others, start = op.attr("starts")
    *strides, step = op.attr("steps", (1,) * len(shape))
    whole = same_shape(shape[:-1], op.type.shape[:-1]) and {*strides} <= {1}
    if not whole or any(begin != 0 for begin in others):
        return None
    size = op.type.shape[-1]
    if equal(size, 1) and equal(shape[-1], 2):
        split = state.producer(x)
        if split is None or split.kind != "reshape":
            return None
        joined = state.type_of(split.inputs[0]).shape
        if same_shape(joined, (*shape[:-2], 2 * shape[-2])):
            return _Part(split.inputs[0], start, 2, shape[-2])
    return _Part(x, start, step, size) if step in (1, 2) else None


def joined_halves(state: StateRewriter, op: Op | None) -> Joined | None:
    """The two values that `op` joins along its last axis, in a row or interleaved."""
    stacked = op is not None and op.kind == "reshape"
    concat = state.producer(op.inputs[0]) if op is not None and stacked else op
    if concat is None or concat.kind != "concat" or len(concat.inputs) != 2:
        return None
    first, second = concat.inputs
    shape, part_shape = concat.type.shape, state.type_of(first).shape
    if concat.attr("axis") not in (-1, len(shape) - 1) or not equal(2 * part_shape[-1], shape[-1]):
        return None
    if not stacked:
        return Joined(first, second, False)
    if op is None or not same_shape(op.type.shape, (*shape[:-2], 2 * shape[-2])):
        return None
    return Joined(_squeezed(state, first), _squeezed(state, second), True)


def _squeezed(state: StateRewriter, name: str) -> str:
    """The value behind reshapes that add or drop a trailing axis of extent 1."""
    while (op := state.producer(name)) is not None and op.kind == "reshape":
        inner, outer = state.type_of(op.inputs[0]).shape, op.type.shape
        if not (same_shape(outer, (*inner, 1)) or same_shape(inner, (*outer, 1))):
            break
        name = op.inputs[0]
    return name


_ELEMENTWISE = ("cos", "sin", "neg", "cast", "mul", "div", "add", "sub")


@dataclass
class HalfTables:
    """Tables of rotary embeddings at half their width, for tables that hold each value twice.

    `new_weights` collects the stored tables that were cut.
    """

    program: Program
    new_weights: dict[str, np.ndarray] = field(default_factory=dict)

    def half(self, draft: Draft, name: str, interleaved: bool) -> str:
        """A value that holds once what the last axis of `name` holds twice.

        Raises:
            MismatchError: if it cannot be shown that `name` holds everything twice.
        """
        return draft.once(("half", name, interleaved), lambda: self._half(draft, name, interleaved))

    def _half(self, draft: Draft, name: str, interleaved: bool) -> str:
        state = draft.state
        op, full = state.producer(name), state.type_of(name)
        shape = (*full.shape[:-1], floor_div(full.shape[-1], 2))
        if op is None:
            return self._cut(draft, name, interleaved)
        joined = joined_halves(state, op)
        if joined is not None and joined == Joined(joined.first, joined.first, interleaved):
            return draft.reshape(joined.first, shape)
        if op.kind == "reshape":
            repeated = _repeated(state, op, interleaved)
            if repeated is not None:
                return draft.reshape(repeated, shape)
        return self._rebuilt(draft, op, shape, interleaved)

    def _rebuilt(self, draft: Draft, op: Op, shape: Shape, interleaved: bool) -> str:
        """The operator over halved inputs."""
        state, width = draft.state, op.type.shape[-1]

        def halved(name: str) -> str:
            found = state.type_of(name).shape
            if op.kind in _ELEMENTWISE and (not found or equal(found[-1], 1)):
                return name
            if not found or not equal(found[-1], width):
                raise MismatchError(_UNPROVEN)
            return self.half(draft, name, interleaved)

        rank, attrs = op.type.rank, op.attrs
        result = TensorType(op.type.dtype, shape)
        match op.kind:
            case "reshape" | "expand":
                return draft.op(op.kind, [halved(op.inputs[0])], type=result)
            case "slice" if equal(op.attr("starts")[-1], 0):
                return draft.op("slice", [halved(op.inputs[0])], attrs, type=result)
            case "transpose" if op.attr("perm")[-1] == rank - 1:
                return draft.op("transpose", [halved(op.inputs[0])], attrs)
            case "gather" if op.attr("axis") in range(state.type_of(op.inputs[0]).rank - 1):
                return draft.op("gather", [halved(op.inputs[0]), op.inputs[1]], attrs)
            case kind if kind in _ELEMENTWISE:
                return draft.op(kind, [halved(name) for name in op.inputs], attrs)
        raise MismatchError(_UNPROVEN)

    def _cut(self, draft: Draft, name: str, interleaved: bool) -> str:
        data = draft.state.weight(name)
        if data is None or data.ndim == 0 or data.shape[-1] % 2:
            raise MismatchError(_UNPROVEN)
        width = data.shape[-1] // 2
        first, second = data[..., :width], data[..., width:]
        if interleaved:
            first, second = data[..., 0::2], data[..., 1::2]
        if not np.array_equal(first, second):
            raise MismatchError(f"the two halves of {name} hold different values")
        cut = f"{name[1:]}.{'even' if interleaved else 'half'}"
        self.new_weights[cut] = first
        full = draft.state.type_of(name)
        return draft.declare(f"@{cut}", TensorType(full.dtype, first.shape))


_UNPROVEN = "it is not provable that the tables hold every value twice"


def _repeated(state: StateRewriter, reshape: Op, interleaved: bool) -> str | None:
    """The value that an expand repeats twice along a new axis which `reshape` merges."""
    repeat = state.producer(reshape.inputs[0])
    if repeat is None or repeat.kind != "expand" or repeat.type.rank < 2:
        return None
    new = -1 if interleaved else -2
    outer, inner = repeat.type.shape, state.type_of(repeat.inputs[0]).shape
    once: list[Dim] = list(outer)
    once[new] = 1
    merged = (*outer[:-2], outer[-2] * outer[-1])
    if outer[new] != 2 or not same_shape(inner, once):
        return None
    return repeat.inputs[0] if same_shape(merged, reshape.type.shape) else None
