"""What is known about the elements of a tensor before any call: the algebra of shapes and indices.

`Elements` are all the elements of a small tensor, expressions over symbols among them. A `Grid` is
a tensor of any size whose element at ``[i, j, …]`` is ``offset + i·steps[0] + j·steps[1] + …``: a
range, a mesh of indices, or, with all steps 0, one value everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import sympy

from dfcompiler.ir import TensorType
from dfcompiler.ir.dims import Dim, Shape, as_dim, equal, expand, floor_div, substitute, symbol

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


# ------------------------------------------------------------------------------------ dimensions


def is_nonnegative(dim: Dim) -> bool | None:
    """Whether a dimension is at least 0 for all symbols at least 1; None when that is not shown."""
    if isinstance(dim, int):
        return dim >= 0
    if dim.is_Symbol:
        return True
    known = dim.is_nonnegative
    if known is not None:
        return bool(known)
    shifted = _shifted(dim)
    if shifted is None:
        return None
    coefficients = shifted.coeffs()
    if all(c >= 0 for c in coefficients):
        return True
    if all(c <= 0 for c in coefficients) and shifted.nth(*(0,) * len(shifted.gens)) < 0:
        return False
    return None


def _shifted(dim: sympy.Expr) -> sympy.Poly | None:
    """`dim` as a polynomial over symbols that start at 0 rather than 1."""
    symbols = sorted(dim.free_symbols, key=str)
    moved = substitute(dim, {s.name: symbol(s.name) + 1 for s in symbols})
    if isinstance(moved, int):
        return sympy.Poly(moved, *symbols)
    try:
        return sympy.Poly(moved, *symbols)
    except sympy.PolynomialError:
        return None


def smaller(a: Dim, b: Dim) -> Dim:
    """``min(a, b)``, decided when it can be."""
    order = is_nonnegative(expand(b - a))
    if order is not None:
        return a if order else b
    return as_dim(sympy.Min(a, b))


def larger(a: Dim, b: Dim) -> Dim:
    """``max(a, b)``, decided when it can be."""
    order = is_nonnegative(expand(b - a))
    if order is not None:
        return b if order else a
    return as_dim(sympy.Max(a, b))


def quotient(a: Dim, b: Dim) -> Dim | None:
    """``a // b`` rounded toward zero, when both signs are known."""
    if isinstance(a, int) and isinstance(b, int):
        return None if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    positive = (isinstance(b, int) and b > 0) or (not isinstance(b, int) and is_nonnegative(b - 1))
    if not positive or not is_nonnegative(a):
        return None
    return floor_div(a, b)


def remainder(a: Dim, b: Dim) -> Dim | None:
    """``a % b`` with the sign of `b`, when `b` is known to be positive."""
    if isinstance(b, int) and b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return as_dim(sympy.Mod(a, b)) if is_nonnegative(b - 1) else None


# ----------------------------------------------------------------------------------- arithmetic


def _equal(a: Dim, b: Dim) -> bool | None:
    if equal(a, b):
        return True
    difference = expand(a - b)
    apart = is_nonnegative(difference - 1) or is_nonnegative(-difference - 1)
    return False if apart else None


def _less(a: Dim, b: Dim) -> bool | None:
    return is_nonnegative(expand(b - a - 1))


def _less_equal(a: Dim, b: Dim) -> bool | None:
    return is_nonnegative(expand(b - a))


def _negated(function: Callable[[Dim, Dim], bool | None]) -> Callable[[Dim, Dim], bool | None]:
    def result(a: Dim, b: Dim) -> bool | None:
        known = function(a, b)
        return None if known is None else not known

    return result


_COMPARISONS: dict[str, Callable[[Dim, Dim], bool | None]] = {
    "equal": _equal,
    "not_equal": _negated(_equal),
    "less": _less,
    "less_equal": _less_equal,
    "greater": _negated(_less_equal),
    "greater_equal": _negated(_less),
}
_ARITHMETIC: dict[str, Callable[..., Dim | None]] = {
    "add": lambda a, b: expand(a + b),
    "sub": lambda a, b: expand(a - b),
    "mul": lambda a, b: expand(a * b),
    "div": quotient,
    "mod": remainder,
    "min": smaller,
    "max": larger,
    "neg": lambda a: expand(-a),
    "abs": lambda a: a if is_nonnegative(a) else None,
}


def combine(
    kind: str, contents: Sequence[Content], shapes: Sequence[Shape], result: Shape
) -> Content | None:
    """The contents of an element-wise operator on integers, when they follow from the inputs'."""
    arrays = [content.array for content in contents if isinstance(content, Elements)]
    if len(arrays) == len(contents):
        return _combine_elements(kind, arrays)
    rank = len(result)
    grids = [grid(c, s, rank) for c, s in zip(contents, shapes, strict=True)]
    if any(g is None for g in grids):
        return None
    return _combine_grids(kind, [g for g in grids if g is not None], result)


def select(condition: Content | None, a: Content | None, b: Content | None) -> Elements | None:
    """Elements of `a` where a known condition is true, of `b` elsewhere."""
    if not (
        isinstance(condition, Elements) and isinstance(a, Elements) and isinstance(b, Elements)
    ):
        return None
    if not condition.is_numeric:
        return None
    chosen = np.where(condition.array, a.array.astype(object), b.array.astype(object))
    return elements(chosen, chosen.shape)


def _combine_elements(kind: str, arrays: Sequence[np.ndarray]) -> Content | None:
    function = _ARITHMETIC.get(kind) or _COMPARISONS.get(kind)
    if function is None:
        return None
    broadcast = np.broadcast_arrays(*arrays)
    flat = [function(*map(as_dim, row)) for row in zip(*(a.flat for a in broadcast), strict=True)]
    if any(value is None for value in flat):
        return None
    shape = broadcast[0].shape
    if kind in _COMPARISONS:
        return Elements(np.array(flat, np.bool_).reshape(shape))
    return elements([value for value in flat if value is not None], shape)


def _combine_grids(kind: str, grids: Sequence[Grid], shape: Shape) -> Grid | None:
    if any(isinstance(g.offset, bool | float) for g in grids):
        return None
    zeros = (0,) * len(shape)
    if kind == "neg":
        return Grid(expand(-grids[0].offset), tuple(expand(-step) for step in grids[0].steps))
    if len(grids) != 2:
        return None
    a, b = grids
    if kind in _COMPARISONS:
        known = _compare_grids(kind, a, b, shape)
        return None if known is None else Grid(known, zeros)
    if kind in ("add", "sub"):
        function = _ARITHMETIC[kind]
        steps = tuple(_sure(function(x, y)) for x, y in zip(a.steps, b.steps, strict=True))
        return Grid(_sure(function(a.offset, b.offset)), steps)
    if kind == "mul" and (a.is_uniform or b.is_uniform):
        scale, scaled = (a.offset, b) if a.is_uniform else (b.offset, a)
        steps = tuple(expand(step * scale) for step in scaled.steps)
        return Grid(expand(scaled.offset * scale), steps)
    if kind in _ARITHMETIC and a.is_uniform and b.is_uniform:
        value = _ARITHMETIC[kind](a.offset, b.offset)
        return None if value is None else Grid(value, zeros)
    return None


def _compare_grids(kind: str, a: Grid, b: Grid, shape: Shape) -> bool | None:
    """The outcome of a comparison when it is the same for every index."""
    steps = [expand(x - y) for x, y in zip(a.steps, b.steps, strict=True)]
    low = high = expand(a.offset - b.offset)
    for step, extent in zip(steps, shape, strict=True):
        sign = is_nonnegative(step)
        if sign is None:
            return None
        reach = expand(step * (extent - 1))
        low, high = (low, high + reach) if sign else (low + reach, high)
    outcomes = {_COMPARISONS[kind](expand(end), 0) for end in (low, high)}
    if kind in ("equal", "not_equal") and any(not isinstance(s, int) or s for s in steps):
        return _ordered_apart(kind, low, high)
    return outcomes.pop() if len(outcomes) == 1 else None


def _ordered_apart(kind: str, low: Dim, high: Dim) -> bool | None:
    """``equal`` and ``not_equal`` of two grids that lie wholly on one side of each other."""
    apart = is_nonnegative(expand(low - 1)) or is_nonnegative(expand(-high - 1))
    return (kind == "not_equal") if apart else None


def _sure(value: Dim | None) -> Dim:
    assert value is not None
    return value
