"""What a boolean mask over (query, key) positions shows, as far as its indices prove it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy

from dfcompiler.analysis.affine import Affine, affine
from dfcompiler.ir.dims import Dim, expand, free_symbols, symbol
from dfcompiler.ir.match import through
from dfcompiler.ir.program import Op
from dfcompiler.ir.rewrite import StateRewriter
from dfcompiler.ir.types import DType


@dataclass(frozen=True)
class Always:
    """Every position is visible."""


@dataclass(frozen=True)
class Causal:
    """Key j is visible to query i exactly when ``j <= i + offset``; axes -2 and -1."""

    offset: Dim


@dataclass(frozen=True)
class Leaf:
    """One of the masks whose conjunction a mask is: the value itself, or its negation."""

    name: str
    negated: bool = False


def leaves(state: StateRewriter, name: str, negated: bool = False) -> list[Leaf]:
    """The masks that all must show a position for `name` (or its negation) to show it."""
    op = state.producer(name)
    if op is None:
        return [Leaf(name, negated)]
    match op.kind:
        case "expand" | "copy":
            return leaves(state, op.inputs[0], negated)
        case "cast" if state.type_of(inner := through(state, name, "cast")).dtype is DType.BOOL:
            return leaves(state, inner, negated)
        case "where" if (values := tuple(map(state.scalar, op.inputs[1:]))) in _CHOICES:
            return leaves(state, op.inputs[0], negated != _CHOICES[values])
        case "not":
            return leaves(state, op.inputs[0], not negated)
        case "and" | "or" if (op.kind == "or") == negated:
            return [leaf for part in op.inputs for leaf in leaves(state, part, negated)]
    return [Leaf(name, negated)]


_CHOICES: dict[tuple[float | None, ...], bool] = {(1, 0): False, (0, 1): True}
"""Whether a choice between true and false is the negation of its condition."""


def shown(state: StateRewriter, leaf: Leaf) -> Always | Causal | None:
    """What a mask shows, if its indices or its stored values prove it."""
    op = state.producer(leaf.name)
    number = state.scalar(leaf.name)
    if number is not None:
        return Always() if bool(number) != leaf.negated else None
    stored = _stored_mask(state, leaf.name)
    if stored is not None:
        return _shown_by(stored[0] != leaf.negated, *stored[1:])
    bound = _difference(state, op) if op is not None else None
    if op is None or bound is None:
        return None
    if leaf.negated:
        # Not (d <= 0) is, for integers, 1 - d <= 0.
        bound = Affine(1).plus(bound, -1)
    shape = op.type.shape
    if _never_positive(state, bound, shape):
        return Always()
    if dict(bound.slopes) == {-1: 1, -2: -1}:
        return Causal(expand(-1 * bound.offset))
    return None


def _difference(state: StateRewriter, comparison: Op) -> Affine | None:
    """An affine d such that the comparison of integers is true exactly when ``d <= 0``."""
    if comparison.kind not in ("less", "less_equal", "greater", "greater_equal"):
        return None
    left, right = (affine(state, name) for name in comparison.inputs)
    if left is None or right is None:
        return None
    low, high = (left, right) if comparison.kind.startswith("less") else (right, left)
    strict = 0 if comparison.kind.endswith("equal") else 1
    return low.plus(high, -1).plus(Affine(strict))


def _never_positive(state: StateRewriter, bound: Affine, shape: tuple[Dim, ...]) -> bool:
    """Whether ``bound <= 0`` at every index, for all values of the program's symbols."""
    greatest = bound.offset
    for axis, slope in bound.slopes.items():
        if not isinstance(slope, int) or -axis > len(shape):
            return False
        greatest += max(slope, 0) * (shape[axis] - 1)
    return not_negative(state, -1 * greatest)


def not_negative(state: StateRewriter, dim: Dim) -> bool:
    """Whether ``dim >= 0`` for all values of the program's symbols, which are 1 at least."""
    if isinstance(dim, int):
        return dim >= 0
    declared = {s.name for s in state.program.symbols}
    if not free_symbols(dim) <= declared:
        return False
    over = {symbol(n): sympy.Symbol(n, integer=True, nonnegative=True) + 1 for n in declared}
    return bool(sympy.expand(dim.subs(over)).is_nonnegative)


def _stored_mask(state: StateRewriter, name: str) -> tuple[np.ndarray, Dim, Dim] | None:
    """A stored mask of two axes, and the first row and column of it that are read."""
    start: tuple[Dim, Dim] = (0, 0)
    op = state.producer(name)
    if op is not None and op.kind == "slice":
        starts, steps = op.attr("starts"), op.attr("steps", (1,))
        if len(starts) < 2 or any(step != 1 for step in steps[-2:]):
            return None
        start, name = (starts[-2], starts[-1]), op.inputs[0]
    data = state.weight(name)
    if data is None or data.ndim < 2 or data.size != data.shape[-2] * data.shape[-1]:
        return None
    return data.reshape(data.shape[-2:]).astype(bool), *start


def _shown_by(mask: np.ndarray, row: Dim, column: Dim) -> Always | Causal | None:
    if mask.all():
        return Always()
    # In a triangle, the first row tells which diagonal it ends at.
    diagonal = int(mask[0].sum()) - 1
    if not np.array_equal(mask, np.tril(np.ones_like(mask), diagonal)):
        return None
    return Causal(expand(row - column + diagonal))
