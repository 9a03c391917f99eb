"""Dimensions as DaCe expressions and as C++ text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import sympy
from dace import dtypes, subsets
from dace.codegen.targets.cpp import sym2cpp
from dace.symbolic import int_ceil, int_floor
from dace.symbolic import symbol as dace_symbol

from dfcompiler.ir.dims import Dim, Shape

_PREFIX = "sym_"


@cache
def symbol(name: str) -> sympy.Symbol:
    """A 64-bit SDFG symbol or map parameter; one object for each name, so that equality holds."""
    return dace_symbol(name, dtypes.int64)


def sdfg_name(name: str) -> str:
    """The name of a program's symbol in the SDFG.

    DaCe prints expressions and parses them again, where sympy reads ``sequence``, ``S`` or ``beta``
    as functions of its own; and a symbol called ``int`` or ``I`` is no C++ variable.
    """
    return _PREFIX + name


def program_name(name: str) -> str:
    """The program's symbol that is called `name` in the SDFG."""
    return name.removeprefix(_PREFIX)


def expression(dim: Dim) -> Any:
    """`dim` over SDFG symbols, with DaCe's integer division; integers stay `int`."""
    return dim if isinstance(dim, int) else _expression(dim)


@cache
def _expression(dim: sympy.Expr) -> Any:
    if dim.is_Symbol:
        return symbol(sdfg_name(dim.name))
    if dim.is_Integer:
        return sympy.Integer(int(dim))
    if isinstance(dim, sympy.floor):
        return int_floor(*_fraction(dim.args[0]))
    if isinstance(dim, sympy.ceiling):
        return int_ceil(*_fraction(dim.args[0]))
    return dim.func(*map(_expression, dim.args)) if dim.args else dim


def _fraction(dim: sympy.Expr) -> tuple[Any, Any]:
    numerator, denominator = sympy.fraction(sympy.together(dim))
    return _expression(numerator), _expression(denominator)


def text(value: Any) -> str:
    """A dimension, or an expression made from dimensions, as C++."""
    if isinstance(value, int):
        return str(value)
    return str(sym2cpp(value))


def unit_range(*indices: Any) -> subsets.Range:
    """The subset with one index on each axis; the only element of an array of rank 0."""
    return subsets.Range([(index, index, 1) for index in indices or (0,)])


def full_range(shape: Iterable[Any]) -> subsets.Range:
    """The subset with every index on each axis."""
    return subsets.Range([(0, extent - 1, 1) for extent in shape])


def product(values: Iterable[Any]) -> Any:
    """The product of integers and expressions."""
    total: Any = 1
    for value in values:
        total = total * value
    return total


def element_count(shape: Shape) -> Any:
    """How many elements a tensor of this shape has."""
    return product(map(expression, shape))


def contraction_work(elements: Any, rows: Any) -> Any:
    """Cost of multiplying `rows` rows with a matrix of `elements`, in element-wise operations.

    16 multiply-adds take as long as one such operation, and reading an element half as long.
    """
    work = elements * (rows + 8)
    return work // 16 if isinstance(work, int) else int_floor(work, 16)


def quotient_and_rest(value: Any, divisor: Any) -> tuple[Any, Any]:
    """`value` / `divisor` rounded down, and what is left; neither is negative.

    The rest is no modulus: sums of products with both collapse to `value` where they can.
    """
    quotient = int_floor(value, divisor)
    return quotient, value - divisor * quotient


def ceil_div(value: Any, divisor: int) -> Any:
    """`value` / `divisor` rounded up."""
    return -(-value // divisor) if isinstance(value, int) else int_ceil(value, divisor)


def is_static(value: Any) -> bool:
    """Whether an extent is a number."""
    return isinstance(value, int) or bool(value.is_Integer)


def is_one(dim: Dim) -> bool:
    """Whether a dimension is the integer 1; a symbol is taken not to be."""
    return isinstance(dim, int) and dim == 1
