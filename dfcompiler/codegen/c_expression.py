"""Dimensions as C expressions over 64-bit integers, exact for every value of their symbols."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
from sympy.printing.str import StrPrinter

from dfcompiler.ir.dims import Dim


def c_expression(dim: Dim, names: Mapping[str, str], integer: str = "wide") -> str:
    """`dim` in C, its symbols spelled as `names` says.

    The expression needs ``floor_div``, ``ceil_div``, ``modulo``, ``greater`` and ``smaller`` over
    the type `integer`.

    Raises:
        KeyError: if a symbol has no name.
        ValueError: if the expression has no exact C form.
    """
    if isinstance(dim, int):
        return f"{integer}({dim})"
    return str(_CPrinter(names, integer).doprint(dim))


class _CPrinter(StrPrinter):  # type: ignore[misc,unused-ignore]
    def __init__(self, names: Mapping[str, str], integer: str) -> None:
        super().__init__()
        self._names, self._integer = names, integer

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self._names[expr.name]

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return f"{self._integer}({int(expr)})"

    def _print_One(self, expr: sympy.Integer) -> str:
        return self._print_Integer(expr)

    def _print_NegativeOne(self, expr: sympy.Integer) -> str:
        return self._print_Integer(expr)

    def _print_Add(self, expr: sympy.Add, order: object = None) -> str:
        return self._ratio(expr) or f"({' + '.join(self._sorted(expr))})"

    def _print_Mul(self, expr: sympy.Mul) -> str:
        return self._ratio(expr) or f"({' * '.join(self._sorted(expr))})"

    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = expr.args
        if not (exponent.is_Integer and int(exponent) > 0):
            return self._ratio(expr) or self.emptyPrinter(expr)
        return f"({' * '.join([self._print(base)] * int(exponent))})"

    def _print_floor(self, expr: sympy.floor) -> str:
        return self._call("floor_div", *sympy.fraction(sympy.together(expr.args[0])))

    def _print_ceiling(self, expr: sympy.ceiling) -> str:
        return self._call("ceil_div", *sympy.fraction(sympy.together(expr.args[0])))

    def _print_Mod(self, expr: sympy.Mod) -> str:
        return self._call("modulo", *expr.args)

    def _print_Max(self, expr: sympy.Max) -> str:
        return self._fold("greater", self._sorted(expr))

    def _print_Min(self, expr: sympy.Min) -> str:
        return self._fold("smaller", self._sorted(expr))

    def emptyPrinter(self, expr: object) -> str:
        raise ValueError(f"{expr} has no exact form in integers")

    def _ratio(self, expr: sympy.Expr) -> str:
        """A fraction whose value is an integer, as one exact division; empty if there is none."""
        numerator, denominator = sympy.fraction(sympy.together(expr))
        return "" if denominator == 1 else self._call("floor_div", numerator, denominator)

    def _call(self, function: str, *arguments: sympy.Expr) -> str:
        return f"{function}({', '.join(map(self._print, arguments))})"

    def _sorted(self, expr: sympy.Expr) -> list[str]:
        return sorted(map(self._print, expr.args))

    def _fold(self, function: str, arguments: list[str]) -> str:
        text = arguments[0]
        for argument in arguments[1:]:
            text = f"{function}({text}, {argument})"
        return text
