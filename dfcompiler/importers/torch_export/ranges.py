"""Integer tensors whose elements follow from their index: where they point is known early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dfcompiler.ir.dims import Dim, Shape, as_dim, equal, expand
from dfcompiler.ir.program import Attrs
from dfcompiler.ir.types import TensorType


@dataclass(frozen=True)
class Range:
    """Element ``i`` along `axis` is ``start + step * i``; without an axis all are `start`."""

    start: Dim
    step: Dim = 0
    axis: int | None = None


def range_of_data(data: np.ndarray) -> Range | None:
    """The range that a small integer array holds, if it does."""
    axes = [i for i, size in enumerate(data.shape) if size != 1]
    if data.dtype.kind != "i" or not 0 < data.size <= 1 << 16 or len(axes) > 1:
        return None
    values = data.reshape(-1)
    start = int(values[0])
    if not axes:
        return Range(start)
    step = int(values[1]) - start
    if not np.array_equal(values, start + step * np.arange(values.size)):
        return None
    return Range(start, step, axes[0]) if step else Range(start)


def range_of_op(
    kind: str,
    ranges: Sequence[Range | None],
    types: Sequence[TensorType],
    attrs: Attrs,
    result: TensorType,
) -> Range | None:
    """The range that an operator gives when its inputs hold `ranges`."""
    if not result.dtype.is_integer:
        return None
    match kind:
        case "constant":
            value = attrs["value"]
            return Range(value) if isinstance(value, int) else None
        case "dim":
            return Range(as_dim(attrs["value"]))
        case "iota":
            return Range(as_dim(attrs.get("start", 0)), as_dim(attrs.get("step", 1)), 0)
    known = [r for r in ranges if r is not None]
    if not known or len(known) < len(ranges):
        return None
    first = known[0]
    match kind:
        case "cast" | "copy":
            return first
        case "reshape":
            return _moved(first, types[0].shape, result.shape)
        case "expand":
            return _widened(first, types[0].shape, result.shape)
        case "transpose" if first.axis is None:
            return first
        case "transpose":
            return replace(first, axis=_axes(attrs["perm"]).index(first.axis))
        case "slice":
            return _sliced(first, attrs)
        case "add" | "sub" | "mul":
            aligned = [
                _widened(r, t.shape, result.shape) for r, t in zip(known, types, strict=True)
            ]
            return _combined(kind, aligned)
    return None


def _axes(value: Any) -> tuple[int, ...]:
    return tuple(value)


def _moved(found: Range, before: Shape, after: Shape) -> Range | None:
    if found.axis is None:
        return found
    axes = [i for i, dim in enumerate(after) if dim != 1]
    if len(axes) != 1 or not equal(after[axes[0]], before[found.axis]):
        return None
    return replace(found, axis=axes[0])


def _widened(found: Range | None, before: Shape, after: Shape) -> Range | None:
    if found is None or found.axis is None:
        return found
    axis = found.axis + len(after) - len(before)
    return replace(found, axis=axis) if equal(before[found.axis], after[axis]) else None


def _sliced(found: Range, attrs: Attrs) -> Range:
    if found.axis is None:
        return found
    starts, axis = _axes(attrs["starts"]), found.axis
    steps = _axes(attrs.get("steps", (1,) * len(starts)))
    return Range(expand(found.start + found.step * starts[axis]), found.step * steps[axis], axis)


def _combined(kind: str, ranges: Sequence[Range | None]) -> Range | None:
    a, b = ranges
    if a is None or b is None or (a.axis is not None and b.axis is not None):
        return None
    axis = b.axis if a.axis is None else a.axis
    if kind == "mul":
        step = expand(a.start * b.step + a.step * b.start)
        return Range(expand(a.start * b.start), step, axis)
    sign = 1 if kind == "add" else -1
    return Range(expand(a.start + sign * b.start), expand(a.step + sign * b.step), axis)
