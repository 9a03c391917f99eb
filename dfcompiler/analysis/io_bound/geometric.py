"""Geometric programs over tile sizes, solved in the logarithms and recognised exactly.

maximize  Σ_s Π_{t in s} D_t   subject to   Σ_j c_j Π_{t in j} D_t ≤ X,   D_t ≥ 1

For large X the maximum is c·X^σ. At the optimum each constraint term takes a share w_j of X and
each monomial of the objective a share v_s of it, and stationarity gives, for every loop with a
tile above one, Σ_s v_s [t in s] = σ Σ_j w_j [t in j]. Hence

    c = Π_j (w_j / c_j)^(σ w_j) · Π_s v_s^(-v_s)

The shares are found by convex optimization (for several monomials from several starts), read as
rationals and checked against the stationarity equations exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy
from numpy.typing import NDArray
from scipy.optimize import minimize

from dfcompiler.analysis.io_bound.nest import Term

FAR = 80.0
"""The logarithm of X at which terms of lower order have vanished."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """The largest tile with a footprint of X words: `factor` · X^`degree`, in leading order."""

    factor: sympy.Expr
    degree: sympy.Rational

    @property
    def logarithm(self) -> float:
        """Of the largest tile at X = e^FAR."""
        return float(sympy.log(self.factor) + self.degree * FAR)

    def intensity(self, words: sympy.Expr) -> sympy.Expr:
        """ρ = min over X of χ(X)/(X − S); operations that one word read can serve."""
        degree = self.degree
        if degree == 1:
            return self.factor  # decreases towards it as X grows
        best = degree / (degree - 1) * words
        return sympy.powsimp(
            sympy.simplify(self.factor * best**degree / (best - words)), force=True
        )


def growth(objective: Sequence[frozenset[str]], terms: Sequence[Term]) -> Growth | None:
    """How the largest tile grows with its footprint; None if that is not recognised.

    A sum of monomials that is no larger than one of them alone grows like that one.

    Args:
        objective: the loops of each statement.
        terms: the footprint.
    """
    if len(objective) == 1:
        return _growth(objective, terms)[1]
    top, found = _growth(objective, terms)
    for one in objective:
        alone = _growth([one], _within(terms, one))[1]
        if alone is not None and alone.logarithm > top - 1e-6:
            return alone
    return found


def _within(terms: Sequence[Term], loops: frozenset[str]) -> list[Term]:
    """The terms that a tile of these loops needs; loops outside have tile size one."""
    return [term for term in terms if term.loops & loops]


def _growth(
    objective: Sequence[frozenset[str]], terms: Sequence[Term]
) -> tuple[float, Growth | None]:
    """The logarithm of the largest tile at X = e^FAR, and what it is recognised as."""
    loops = sorted(frozenset().union(*objective))
    gains = _rows(objective, loops)
    spans = _rows([term.loops for term in terms], loops)
    costs = np.log([float(term.coefficient) for term in terms])
    point = _optimum(gains, spans, costs)
    top = _log_sum(gains @ point)
    constraint, goal = _shares(spans @ point + costs), _shares(gains @ point)
    exact = _recognised(constraint, goal, gains, spans, point > 1e-6 * FAR)
    if exact is None:
        return top, None
    degree, weights, parts = exact
    factor = sympy.Integer(1)
    for weight, term in zip(weights, terms, strict=True):
        if weight:
            factor *= (weight / sympy.Integer(term.coefficient)) ** (degree * weight)
    for part in parts:
        if part:
            factor *= part ** (-part)
    return top, Growth(sympy.simplify(factor), degree)


def _rows(sets: Sequence[frozenset[str]], loops: Sequence[str]) -> Vector:
    return np.array([[float(loop in one) for loop in loops] for one in sets])


def _shares(logarithms: Vector) -> Vector:
    raised = np.exp(logarithms - logarithms.max())
    return np.asarray(raised / raised.sum())


def _log_sum(logarithms: Vector) -> float:
    top = float(logarithms.max())
    return top + float(np.log(np.exp(logarithms - top).sum()))


def _optimum(gains: Vector, spans: Vector, costs: Vector) -> Vector:
    """The logarithms of the best tile sizes at X = e^FAR, from the best of several starts."""
    even = np.full(gains.shape[1], FAR / max(1.0, spans.sum(axis=1).max()) - 2.0)
    starts = [even, *(even * (0.2 + row) / 1.2 for row in gains)] if len(gains) > 1 else [even]
    found = [_from(start, gains, spans, costs) for start in starts]
    return max(found, key=lambda point: _log_sum(gains @ point))


def _from(start: Vector, gains: Vector, spans: Vector, costs: Vector) -> Vector:
    solved = minimize(
        lambda y: -_log_sum(gains @ y),
        start,
        jac=lambda y: -(_shares(gains @ y) @ gains),
        method="SLSQP",
        bounds=[(0.0, FAR)] * gains.shape[1],
        constraints={
            "type": "ineq",
            "fun": lambda y: FAR - _log_sum(spans @ y + costs),
            "jac": lambda y: -(_shares(spans @ y + costs) @ spans),
        },
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return np.asarray(solved.x)


def _recognised(
    constraint: Vector, goal: Vector, gains: Vector, spans: Vector, free: NDArray[np.bool_]
) -> tuple[sympy.Rational, list[sympy.Rational], list[sympy.Rational]] | None:
    """The degree and the shares as rationals that satisfy stationarity; None if they do not."""
    weights, parts = [_rational(w) for w in constraint], [_rational(v) for v in goal]
    if sum(weights) != 1 or sum(parts) != 1:
        return None
    degrees: set[sympy.Rational] = set()
    for loop in np.flatnonzero(free):
        left = sum((p for p, row in zip(parts, gains, strict=True) if row[loop]), sympy.Integer(0))
        right = sum(
            (w for w, row in zip(weights, spans, strict=True) if row[loop]), sympy.Integer(0)
        )
        if not right:
            return None
        degrees.add(left / right)
    if len(degrees) != 1:
        return None
    return degrees.pop(), weights, parts


def _rational(value: float) -> sympy.Rational:
    near = Fraction(float(value)).limit_denominator(48)
    if abs(float(near) - value) > 1e-4:
        near = Fraction(float(value)).limit_denominator(10**6)
    return sympy.Rational(near.numerator, near.denominator)
