"""Dimensions of an exported graph: torch's symbolic sizes as dimensions of the IR."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import sympy
import torch
from torch.utils._sympy import functions

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.dims import Dim, as_dim, ceil_div, expand, floor_div, symbol
from dfcompiler.ir.program import Symbol
from dfcompiler.ir.types import DType, TensorType

_DTYPES = {
    torch.float64: DType.F64,
    torch.float32: DType.F32,
    torch.float16: DType.F16,
    torch.bfloat16: DType.BF16,
    torch.int64: DType.I64,
    torch.int32: DType.I32,
    torch.int16: DType.I16,
    torch.int8: DType.I8,
    torch.uint8: DType.U8,
    torch.bool: DType.BOOL,
}
_TORCH_DTYPES = {ours: theirs for theirs, ours in _DTYPES.items()}


def dtype_of(dtype: torch.dtype) -> DType:
    """The element type of a torch dtype.

    Raises:
        UnsupportedError: if the IR has none.
    """
    if dtype not in _DTYPES:
        raise UnsupportedError(f"the dtype {dtype} has no element type")
    return _DTYPES[dtype]


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of an element type."""
    return _TORCH_DTYPES[dtype]


class Symbols:
    """Torch's size symbols under readable names, with their upper bounds.

    A symbol takes the name of its `torch.export.Dim`; one without a name becomes ``s0``, ``s1``, …
    in the order of appearance.
    """

    def __init__(self, range_constraints: Mapping[Any, Any], shape_env: Any = None) -> None:
        self._given = _given_names(shape_env)
        self._names: dict[str, str] = {}
        self._maxima: dict[str, int] = {}
        self._upper = {
            str(torch_symbol): int(bounds.upper)
            for torch_symbol, bounds in range_constraints.items()
            if bounds.upper.is_Integer
        }

    def declared(self) -> tuple[Symbol, ...]:
        """Every symbol met so far, in order of appearance."""
        names = dict.fromkeys(self._names.values())
        return tuple(Symbol(name, self._maxima.get(name)) for name in names)

    def limit(self, dim: Dim, maximum: int) -> None:
        """Records that `dim` is at most `maximum`, if it is a symbol alone."""
        if isinstance(dim, int) or not dim.is_Symbol:
            return
        self._maxima[dim.name] = min(maximum, self._maxima.get(dim.name, maximum))

    def dim(self, size: Any) -> Dim:
        """A size of torch, a number or a symbolic one, as a dimension."""
        if isinstance(size, int):
            return int(size)
        expression = size.node.expr if isinstance(size, torch.SymInt) else size
        return expand(as_dim(self._convert(expression)))

    def type(self, tensor: torch.Tensor) -> TensorType:
        """The type of a (fake) tensor."""
        return TensorType(dtype_of(tensor.dtype), tuple(map(self.dim, tensor.shape)))

    def _convert(self, expression: Any) -> Any:
        if expression.is_Symbol:
            return symbol(self._name(str(expression)))
        if not expression.args:
            return expression
        arguments = [self._convert(argument) for argument in expression.args]
        rule = _FUNCTIONS.get(expression.func)
        if rule is not None:
            return rule(*arguments)
        if expression.func in _ARITHMETIC:
            return expression.func(*arguments)
        raise UnsupportedError(f"the size {expression} cannot be written as a dimension")

    def _name(self, torch_name: str) -> str:
        if torch_name in self._names:
            return self._names[torch_name]
        if re.fullmatch(r"u\d+", torch_name):
            raise UnsupportedError(
                f"a size depends on the values of a tensor ({torch_name})",
                hint="shapes must follow from the shapes of the inputs",
            )
        name = self._given.get(torch_name) or self._fresh()
        self._names[torch_name] = name
        if torch_name in self._upper:
            self.limit(symbol(name), self._upper[torch_name])
        return name

    def _fresh(self) -> str:
        taken = set(self._names.values()) | set(self._given.values())
        return next(name for i in range(len(taken) + 1) if (name := f"s{i}") not in taken)


_ARITHMETIC = (sympy.Add, sympy.Mul, sympy.Pow, sympy.Max, sympy.Min, sympy.Mod)
_FUNCTIONS = {
    functions.FloorDiv: floor_div,
    functions.CleanDiv: floor_div,
    functions.CeilDiv: ceil_div,
    functions.Mod: sympy.Mod,
    functions.PythonMod: sympy.Mod,
    functions.Max: sympy.Max,
    functions.Min: sympy.Min,
    functions.IntTrueDiv: lambda a, b: sympy.sympify(a) / b,
    functions.PowByNatural: lambda a, b: sympy.sympify(a) ** b,
    functions.Identity: lambda a: a,
}


def _given_names(shape_env: Any) -> dict[str, str]:
    """Names that the user gave to torch's symbols, by torch's own names for them."""
    if shape_env is None:
        return {}
    by_source: Mapping[str, str] = getattr(shape_env, "source_name_to_debug_name", {})
    found: dict[str, str] = {}
    for torch_symbol, sources in getattr(shape_env, "var_to_sources", {}).items():
        for name in _source_names(sources):
            given = by_source.get(name, "")
            if given.isidentifier():
                found.setdefault(str(torch_symbol), given)
    return found


def _source_names(sources: Iterable[Any]) -> list[str]:
    return [s.name if isinstance(s.name, str) else s.name() for s in sources]
