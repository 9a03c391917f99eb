"""Integers that are an affine function of their indices, such as positions and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dfcompiler.ir.dims import Dim, equal, expand
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType


class Values(Protocol):
    """What is known about the values of a state."""

    def scalar(self, name: str) -> Any:
        """The number that all elements have, where it is known."""

    def producer(self, name: str) -> Op | None:
        """The operator that defines a value."""

    def type_of(self, name: str) -> TensorType:
        """The type of a value or a container."""


@dataclass(frozen=True)
class Affine:
    """``offset + Σ slope · index`` over indices of axes, counted from the last (-1)."""

    offset: Dim
    slopes: Mapping[int, Dim] = field(default_factory=dict)

    def plus(self, other: Affine, sign: int = 1) -> Affine:
        axes = {*self.slopes, *other.slopes}
        slopes = {a: self.slopes.get(a, 0) + sign * other.slopes.get(a, 0) for a in axes}
        nonzero = {axis: slope for axis, slope in slopes.items() if not equal(slope, 0)}
        return Affine(expand(self.offset + sign * other.offset), nonzero)

    def times(self, factor: int) -> Affine:
        return Affine(
            self.offset * factor, {a: s * factor for a, s in self.slopes.items() if factor}
        )


def affine(state: Values, name: str, depth: int = 8) -> Affine | None:
    """The integers of `name` as an affine function of their indices, if they are one.

    Looks through `depth` sums and products in a row, so that it takes constant time.
    """
    number = state.scalar(name)
    if number is not None:
        return Affine(int(number)) if int(number) == number else None
    op = state.producer(name)
    found = _of_op(state, op, depth) if op is not None and depth else None
    if op is None or found is None:
        return None
    # The only index of an axis is 0; another may stand there where the axis is broadcast.
    long = {i - op.type.rank for i, extent in enumerate(op.type.shape) if extent != 1}
    return Affine(found.offset, {a: s for a, s in found.slopes.items() if a in long})


def _of_op(state: Values, op: Op, depth: int) -> Affine | None:
    if op.kind in ("add", "sub", "mul"):
        left, right = (affine(state, part, depth - 1) for part in op.inputs)
        if left is None or right is None:
            return None
        return _combined(op.kind, left, right)
    match op.kind:
        case "dim":
            return Affine(op.attr("value"))
        case "iota":
            return Affine(op.attr("start", 0), {-1: op.attr("step", 1)})
        case "cast" if op.type.dtype.bytes < 4:
            return None
        case "expand" | "cast" | "copy" | "neg":
            inner = affine(state, op.inputs[0], depth)
            return inner.times(-1) if inner is not None and op.kind == "neg" else inner
        case "reshape":
            inner = affine(state, op.inputs[0], depth)
            return inner and _reshaped(inner, state.type_of(op.inputs[0]).shape, op.type.shape)
        case "transpose":
            inner, rank = affine(state, op.inputs[0], depth), op.type.rank
            to = {axis - rank: i - rank for i, axis in enumerate(op.attr("perm"))}
            return inner and Affine(inner.offset, {to[a]: s for a, s in inner.slopes.items()})
        case "slice":
            inner = affine(state, op.inputs[0], depth - 1)
            return inner and _sliced(inner, op)
        case "concat" if len(op.inputs) <= depth:
            parts = [affine(state, part, depth - 1) for part in op.inputs]
            known = [part for part in parts if part is not None]
            return _joined(state, op, known) if len(known) == len(parts) else None
    return None


def _sliced(value: Affine, op: Op) -> Affine:
    starts, rank = op.attr("starts"), op.type.rank
    steps = op.attr("steps") or (1,) * rank
    offset = value.offset
    for axis, slope in value.slopes.items():
        offset += slope * starts[axis + rank]
    slopes = {axis: slope * steps[axis + rank] for axis, slope in value.slopes.items()}
    return Affine(expand(offset), slopes)


def _joined(state: Values, op: Op, parts: Sequence[Affine]) -> Affine | None:
    """The function that runs through all parts of a concatenation, if there is one.

    A part of one element along the axis may have any slope there.
    """
    axis = normalize_axis(int(op.attr("axis")), op.type.rank)
    extents = [state.type_of(name).shape[axis] for name in op.inputs]
    along = axis - op.type.rank
    long = [part for part, extent in zip(parts, extents, strict=True) if extent != 1]
    if not long:
        return None
    slope = long[0].slopes.get(along, 0)
    start: Dim = 0
    for part, extent in zip(parts, extents, strict=True):
        slopes = {**part.slopes, along: slope} if extent == 1 else dict(part.slopes)
        expected = Affine(expand(parts[0].offset + slope * start), long[0].slopes)
        difference = Affine(part.offset, slopes).plus(expected, -1)
        if difference.slopes or not equal(difference.offset, 0):
            return None
        start = start + extent
    return Affine(parts[0].offset, long[0].slopes)


def _combined(kind: str, left: Affine, right: Affine) -> Affine | None:
    if kind == "add":
        return left.plus(right)
    if kind == "sub":
        return left.plus(right, -1)
    for factor, value in ((left, right), (right, left)):
        if not factor.slopes and isinstance(factor.offset, int):
            return value.times(factor.offset)
    return None


def _reshaped(value: Affine, inner: tuple[Dim, ...], outer: tuple[Dim, ...]) -> Affine | None:
    """The function after a reshape that adds or drops axes of extent 1."""
    old = [i - len(inner) for i, dim in enumerate(inner) if dim != 1]
    new = [i - len(outer) for i, dim in enumerate(outer) if dim != 1]
    if len(old) != len(new) or not all(
        equal(inner[a], outer[b]) for a, b in zip(old, new, strict=True)
    ):
        return None
    to = dict(zip(old, new, strict=True))
    # Along an axis of extent 1 the index is 0.
    return Affine(value.offset, {to[a]: s for a, s in value.slopes.items() if a in to})
