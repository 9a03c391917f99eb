"""Symbols of an import: names, equations that operators force, and bounds that tables set."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import dataclass, field

import sympy

from dfcompiler.errors import UnsupportedError
from dfcompiler.importers.onnx.dimension_arithmetic import is_nonnegative
from dfcompiler.ir import Symbol
from dfcompiler.ir.dims import Dim, as_dim, equal, expand, free_symbols, parse_dim, show_dim, symbol
from dfcompiler.ir.dims import substitute as substitute_dim


class Equation(Exception):  # noqa: N818 - a finding, not a failure
    """An operator forces a symbol to equal a dimension: the import starts over with it."""

    def __init__(self, name: str, dim: Dim) -> None:
        super().__init__(f"{name} = {show_dim(dim)}")
        self.name, self.dim = name, dim


@dataclass
class Symbols:
    """The symbols of one program.

    Attributes:
        equations: what operators forced so far, found by earlier attempts of the same import.
        order: names in the order in which inputs introduce them.
        maxima: the greatest value that a table or a slice allows.
    """

    equations: dict[str, Dim] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    maxima: dict[str, int] = field(default_factory=dict)
    _idents: dict[str, str] = field(default_factory=dict)

    def named(self, parameter: str) -> Dim:
        """The dimension that a dim_param means: a symbol, or an expression over symbols."""
        tree = _expression(parameter)
        if tree is not None:
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            if names <= set(self._idents):
                idents = {name: symbol(self._idents[name]) for name in names}
                return self._known(substitute_dim(parse_dim(parameter), idents))
        return self._known(symbol(self._identifier(parameter)))

    def declare(self, parameters: list[str]) -> None:
        """Reserves identifiers for plain names, so that expressions over them are understood."""
        for parameter in parameters:
            if parameter.isidentifier():
                self._identifier(parameter)

    def unnamed(self) -> Dim:
        """The first of the symbols ``d0``, ``d1``, … that is not in use."""
        number = 0
        while f"d{number}" in self._idents.values():
            number += 1
        return self._known(symbol(self._identifier(f"d{number}")))

    def _identifier(self, parameter: str) -> str:
        if parameter not in self._idents:
            ident = re.sub(r"\W+", "_", parameter, flags=re.ASCII).strip("_") or "d"
            ident = f"d_{ident}" if ident[0].isdigit() else ident
            ident += "_" * keyword.iskeyword(ident)
            while ident in self._idents.values():
                ident += "_"
            self._idents[parameter] = ident
        return self._idents[parameter]

    def _known(self, dim: Dim) -> Dim:
        known = dim
        for _ in range(len(self.equations) + 1):
            known = substitute_dim(known, self.equations)
        self.order += sorted(free_symbols(known) - set(self.order))
        return known

    def unify(self, a: Dim, b: Dim) -> None:
        """Makes two dimensions equal.

        Raises:
            Equation: when a symbol has to be replaced for that.
            ValueError: when they cannot be equal.
            UnsupportedError: when they are equal for some values of the symbols that no symbol's
                replacement describes.
        """
        if equal(a, b):
            return
        difference = expand(a - b)
        names = sorted(free_symbols(difference), key=self.order.index, reverse=True)
        solutions = [(name, _solve(difference, name)) for name in names]
        found = [(name, dim) for name, dim in solutions if dim is not None]
        # An extent that is a sum is an extent for all values; a difference may be negative.
        found.sort(key=lambda pair: is_nonnegative(pair[1] - 1) is not True)
        for name, dim in found:
            raise Equation(name, dim)
        apart = is_nonnegative(difference - 1) or is_nonnegative(-difference - 1)
        if apart:
            raise ValueError(f"extents {show_dim(a)} and {show_dim(b)} differ")
        raise UnsupportedError(
            f"extents {show_dim(a)} and {show_dim(b)} are equal for some sizes only",
            hint="export the model with fixed sizes",
        )

    def bound(self, dim: Dim, most: int) -> bool:
        """Records ``dim <= most`` at the symbol in `dim`; False when that cannot be recorded."""
        if isinstance(dim, int):
            return dim <= most
        names = free_symbols(dim)
        if len(names) != 1:
            return False
        (name,) = names
        line = sympy.Poly(dim, symbol(name)) if dim.is_polynomial() else None
        if line is None or line.degree() != 1 or not line.LC() > 0:
            return False
        limit = int((most - line.nth(0)) // line.LC())
        if limit < 1:
            return False
        self.maxima[name] = min(limit, self.maxima.get(name, limit))
        return True

    def table(self) -> tuple[Symbol, ...]:
        return tuple(Symbol(name, self.maxima.get(name)) for name in self.order)


def _expression(parameter: str) -> ast.Expression | None:
    """The parsed expression, when `parameter` is one and not just a name."""
    if parameter.isidentifier():
        return None
    try:
        tree = ast.parse(parameter.strip(), mode="eval")
        parse_dim(parameter)
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, RecursionError):
        return None
    return tree


def _solve(difference: Dim, name: str) -> Dim | None:
    """The value of the symbol for which `difference` is 0, when it is a valid extent."""
    if isinstance(difference, int) or not difference.is_polynomial(symbol(name)):
        return None
    line = sympy.Poly(difference, symbol(name))
    if line.degree() != 1:
        return None
    slope, rest = line.nth(1), line.nth(0)
    value = sympy.cancel(-rest / slope)
    if value.is_Integer:
        return int(value) if value >= 1 else None
    symbols = sorted(value.free_symbols, key=str)
    if not symbols or not value.is_polynomial(*symbols):
        return None
    whole = all(c.is_Integer for c in sympy.Poly(value, *symbols).coeffs())
    return as_dim(expand(value)) if whole else None
