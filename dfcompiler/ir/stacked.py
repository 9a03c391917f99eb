"""Arrays that are kept in parts until somebody needs them whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np


class Stacked:
    """Arrays of one shape and dtype as one with an axis more in front.

    Nothing is copied: `np.asarray` makes the whole array when it is asked for, and who can work
    part by part uses `parts`.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        first = parts[0]
        if any((part.shape, part.dtype) != (first.shape, first.dtype) for part in parts):
            raise ValueError("stacked arrays have one shape and one dtype")
        self.parts = tuple(parts)
        self.dtype, self.shape = first.dtype, (len(parts), *first.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return len(self.parts) * self.parts[0].size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack(self.parts).astype(dtype or self.dtype, copy=False)


class SideBySide:
    """Matrices, or vectors, of one dtype as one: next to each other along the last axis.

    Nothing is copied but what is asked for: a part by slices, or the whole by `np.asarray`.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        first = parts[0]
        if any((p.shape[:-1], p.dtype) != (first.shape[:-1], first.dtype) for p in parts):
            raise ValueError("arrays side by side differ in their last axis only")
        self.parts = tuple(parts)
        self.dtype = first.dtype
        self.shape = (*first.shape[:-1], sum(part.shape[-1] for part in parts))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """The elements of a range without steps along each axis."""
        *rows, columns = index
        start, stop, _ = columns.indices(self.shape[-1])
        found = []
        for part in self.parts:
            if start < part.shape[-1] and stop > 0:
                found.append(part[(*rows, slice(max(start, 0), stop))])
            start, stop = start - part.shape[-1], stop - part.shape[-1]
        return _joined(found) if found else self.parts[0][(*rows, slice(0, 0))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return _joined(self.parts).astype(dtype or self.dtype, copy=False)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays concatenated along their last axis, in the order that they have in memory.

    Weights of torch are transposed views; concatenated as rows, they are copied in long runs.
    """
    if len(arrays) == 1:
        return arrays[0]
    if all(array.ndim == 2 and array.strides[0] < array.strides[1] for array in arrays):
        return np.concatenate([array.T for array in arrays]).T
    return np.concatenate(arrays, axis=-1)


def stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays as one, made when it is asked for; program data takes it for an array."""
    return cast(np.ndarray, Stacked(parts))


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays along their last axis, made when asked for; program data takes it for an array."""
    return cast(np.ndarray, SideBySide(parts))


def parts_of(array: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """The arrays that `stack` was given; None for any other array."""
    return array.parts if isinstance(array, Stacked) else None


def address_of(array: np.ndarray) -> int:
    """Where the first element is in memory: arrays of the same values may share it."""
    while isinstance(array, Stacked | SideBySide):
        array = array.parts[0]
    return int(array.__array_interface__["data"][0])
