"""Arithmetic and comparisons of dimensions, decided where one answer holds for all sizes."""

from __future__ import annotations

from collections.abc import Callable

import sympy

from dfcompiler.ir.dims import Dim, as_dim, equal, expand, floor_div, substitute, symbol


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


COMPARISONS: dict[str, Callable[[Dim, Dim], bool | None]] = {
    "equal": _equal,
    "not_equal": _negated(_equal),
    "less": _less,
    "less_equal": _less_equal,
    "greater": _negated(_less_equal),
    "greater_equal": _negated(_less),
}
"""Comparisons by operator; None where the symbols do not decide."""
ARITHMETIC: dict[str, Callable[..., Dim | None]] = {
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
"""Element-wise arithmetic by operator; None where the result is no dimension."""
