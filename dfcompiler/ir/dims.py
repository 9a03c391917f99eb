"""Dimensions: plain integers, or sympy expressions over named positive integers.

Integers stay `int`, because sympy is slow; an expression that turns out constant becomes `int`
again. The text form is Python's: ``2*S + 1``, ``S // 2``, ``S % 4``, ``max(A, B)``,
``ceildiv(S, 8)``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeAlias

import sympy
from sympy.printing.str import StrPrinter

Dim: TypeAlias = int | sympy.Expr
Shape: TypeAlias = tuple[Dim, ...]


@cache
def symbol(name: str) -> sympy.Symbol:
    """The dimension called `name`: a positive integer."""
    return sympy.Symbol(name, integer=True, positive=True)


def as_dim(value: object) -> Dim:
    """`value` as a dimension; a constant expression becomes an `int`.

    Raises:
        ValueError: if it is neither an integer nor an expression.
    """
    if isinstance(value, int):
        return int(value)
    if isinstance(value, sympy.Expr):
        return int(value) if value.is_Integer else value
    if hasattr(value, "__index__"):
        return int(value.__index__())
    raise ValueError(f"{value!r} is not a dimension")


def expand(dim: Dim) -> Dim:
    """The canonical form in which equal polynomials are equal objects."""
    return dim if isinstance(dim, int) else as_dim(sympy.expand(dim))


def equal(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are equal for every value of their symbols."""
    if a is b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a == b or _equal_expressions(a, b)


@cache
def _equal_expressions(a: Dim, b: Dim) -> bool:
    difference = sympy.expand(sympy.sympify(a) - sympy.sympify(b))
    if difference == 0:
        return True
    if difference.is_polynomial(*difference.free_symbols):
        return False  # expanded polynomials are equal when they are the same; simplify is slow
    return bool(sympy.simplify(difference) == 0)


def same_shape(a: Iterable[Dim], b: Iterable[Dim]) -> bool:
    """Whether two shapes have the same rank and equal dimensions."""
    left, right = tuple(a), tuple(b)
    return len(left) == len(right) and all(map(equal, left, right))


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return expand(total)


def floor_div(a: Dim, b: Dim) -> Dim:
    """``a // b`` with Python's rounding."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return as_dim(sympy.floor(sympy.cancel(sympy.sympify(a) / b)))


def ceil_div(a: Dim, b: Dim) -> Dim:
    """``a / b`` rounded up."""
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    return as_dim(sympy.ceiling(sympy.cancel(sympy.sympify(a) / b)))


def free_symbols(*dims: Dim) -> set[str]:
    """The names of all symbols in `dims`."""
    return {s.name for dim in dims if not isinstance(dim, int) for s in dim.free_symbols}


def evaluate(dim: Dim, bindings: Mapping[str, int]) -> int:
    """The value of `dim` with every symbol bound.

    Raises:
        KeyError: if a symbol has no binding.
    """
    if isinstance(dim, int):
        return dim
    return int(dim.subs({s: bindings[s.name] for s in dim.free_symbols}))


def substitute(dim: Dim, replacements: Mapping[str, Dim]) -> Dim:
    """`dim` with symbols replaced by dimensions."""
    if isinstance(dim, int):
        return dim
    pairs = {s: replacements[s.name] for s in dim.free_symbols if s.name in replacements}
    return expand(as_dim(dim.subs(pairs, simultaneous=True))) if pairs else dim


class _DimPrinter(StrPrinter):
    def _print_floor(self, expr: sympy.Expr) -> str:
        numerator, denominator = sympy.fraction(sympy.together(expr.args[0]))
        text = self._print(numerator)
        left = f"({text})" if numerator.is_Add else text
        return f"({left} // {self._divisor(denominator)})"

    def _print_ceiling(self, expr: sympy.Expr) -> str:
        numerator, denominator = sympy.fraction(sympy.together(expr.args[0]))
        return f"ceildiv({self._print(numerator)}, {self._print(denominator)})"

    def _print_Mod(self, expr: sympy.Expr) -> str:
        return f"({self._divisor(expr.args[0])} % {self._divisor(expr.args[1])})"

    def _print_Max(self, expr: sympy.Expr) -> str:
        return f"max({', '.join(sorted(map(self._print, expr.args)))})"

    def _print_Min(self, expr: sympy.Expr) -> str:
        return f"min({', '.join(sorted(map(self._print, expr.args)))})"

    def _divisor(self, expr: sympy.Expr) -> str:
        text = self._print(expr)
        return text if expr.is_Atom else f"({text})"


_PRINTER = _DimPrinter()


def show_dim(dim: Dim) -> str:
    """The text form; also valid Python, and C when it has no call and only positive operands."""
    return str(dim) if isinstance(dim, int) else _show_expression(dim)


@cache
def _show_expression(dim: sympy.Expr) -> str:
    return str(_PRINTER.doprint(dim))


@cache
def parse_dim(text: str) -> Dim:
    """The dimension that `show_dim` wrote as `text`.

    Raises:
        ValueError: if `text` is not a dimension.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{text!r} is not a dimension") from error
    return expand(as_dim(_dim_of(tree.body, text)))


def _dim_of(node: ast.expr, text: str) -> Dim:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_dim_of(operand, text)
        case ast.BinOp(left=left, op=operator, right=right):
            return _binary(operator, _dim_of(left, text), _dim_of(right, text), text)
        case ast.Call(func=ast.Name(id="max"), args=arguments):
            return as_dim(sympy.Max(*(_dim_of(a, text) for a in arguments)))
        case ast.Call(func=ast.Name(id="min"), args=arguments):
            return as_dim(sympy.Min(*(_dim_of(a, text) for a in arguments)))
        case ast.Call(func=ast.Name(id="ceildiv"), args=[a, b]):
            return ceil_div(_dim_of(a, text), _dim_of(b, text))
    raise ValueError(f"{text!r} is not a dimension")


def _binary(operator: ast.operator, a: Dim, b: Dim, text: str) -> Dim:
    match operator:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return as_dim(sympy.sympify(a) / b)
        case ast.FloorDiv():
            return floor_div(a, b)
        case ast.Mod():
            return as_dim(sympy.Mod(a, b))
        case ast.Pow():
            return as_dim(sympy.sympify(a) ** b)
    raise ValueError(f"{text!r} is not a dimension")
