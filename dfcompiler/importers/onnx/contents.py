"""What is known about the elements of a tensor before any call: shapes and indices.

`Elements` are all the elements of a small tensor, expressions over symbols among them. A `Grid` is
a tensor of any size whose element at ``[i, j, …]`` is ``offset + i·steps[0] + j·steps[1] + …``: a
range, a mesh of indices, or, with all steps 0, one value everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from dfcompiler.ir import TensorType
from dfcompiler.ir.dims import Dim, Shape, as_dim

SMALL = 64
"""Tensors of up to this many elements are computed here when all their elements are known."""
Number: TypeAlias = Any
"""A Python number, bool, or a dimension."""


@dataclass(frozen=True, eq=False)
class Elements:
    """All elements, in numpy's row-major order; an object array holds expressions."""

    array: np.ndarray

    @property
    def is_numeric(self) -> bool:
        return self.array.dtype != object


@dataclass(frozen=True, eq=False)
class Grid:
    """``offset + Σ steps[a] · index[a]``."""

    offset: Number
    steps: tuple[Dim, ...]

    @property
    def is_uniform(self) -> bool:
        return all(isinstance(step, int) and step == 0 for step in self.steps)


Content: TypeAlias = Elements | Grid


def elements(values: Sequence[Dim] | np.ndarray, shape: tuple[int, ...] | None = None) -> Elements:
    """Integers and expressions as contents; int64 when no symbol is left."""
    flat = list(values.flat) if isinstance(values, np.ndarray) else list(values)
    dims = [as_dim(value) for value in flat]
    array = np.empty(len(dims), object)
    array[:] = dims
    if all(isinstance(dim, int) for dim in dims):
        array = array.astype(np.int64)
    return Elements(array.reshape(shape if shape is not None else (len(dims),)))


def small_grid(content: Content, type: TensorType) -> Content:  # noqa: A002
    """The elements of a grid, when there are few and no symbol is among them."""
    if not isinstance(content, Grid) or not all(isinstance(d, int) for d in type.shape):
        return content
    if type.elements > SMALL or any(not isinstance(n, int | float) for n in _numbers(content)):
        return content
    total = np.full(type.shape, content.offset, type.dtype.numpy)
    for axis, step in enumerate(content.steps):
        column = [1] * type.rank
        column[axis] = -1
        total = total + (step * np.arange(type.shape[axis])).reshape(column).astype(total.dtype)
    return Elements(total)


def _numbers(content: Grid) -> tuple[Number, ...]:
    return (content.offset, *content.steps)


def uniform(content: Content | None) -> Number | None:
    """The value that all elements have; None when they differ or are unknown."""
    match content:
        case Grid() if content.is_uniform:
            return content.offset
        case Elements(array) if array.size == 1:
            first = array.reshape(-1)[0]
            return first.item() if isinstance(first, np.generic) else first
        case Elements(array) if array.size and content.is_numeric:
            first = array.reshape(-1)[0]
            return first.item() if bool(np.all(array == first)) else None
    return None


def grid(content: Content | None, shape: Shape, rank: int) -> Grid | None:
    """The contents of a tensor of `shape` as a grid of `rank` axes, broadcast from the right."""
    match content:
        case Grid(offset, steps):
            kept = tuple(
                0 if isinstance(dim, int) and dim == 1 else step
                for step, dim in zip(steps, shape, strict=True)
            )
            return Grid(offset, (0,) * (rank - len(kept)) + kept)
        case Elements():
            value = uniform(content)
            if value is not None:
                return Grid(value, (0,) * rank)
            return _arange(content, rank)
    return None


def _arange(content: Elements, rank: int) -> Grid | None:
    """A vector of equally spaced integers, all other extents 1."""
    array = content.array
    axes = [axis for axis, extent in enumerate(array.shape) if extent != 1]
    if not content.is_numeric or array.dtype.kind not in "iu" or len(axes) != 1:
        return None
    return spaced(array, rank)


def spaced(array: np.ndarray, rank: int) -> Grid | None:
    """The grid of an integer array in which only one extent is not 1, if equally spaced."""
    axes = [axis for axis, extent in enumerate(array.shape) if extent != 1]
    if array.dtype.kind not in "iu" or len(axes) != 1 or array.size < 2:
        return None
    flat = array.reshape(-1)
    start, step = int(flat[0]), int(flat[1]) - int(flat[0])
    if int(flat[-1]) != start + step * (flat.size - 1) or not bool(np.all(np.diff(flat) == step)):
        return None
    steps = [0] * rank
    steps[rank - array.ndim + axes[0]] = step
    return Grid(start, tuple(steps))
