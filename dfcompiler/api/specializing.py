"""Sizes of a model that a user fixes or limits, by symbol or by the shape of an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from dfcompiler.errors import UsageError

if TYPE_CHECKING:
    from dfcompiler.ir import Program
    from dfcompiler.ir.dims import Dim

Sizes: TypeAlias = "Mapping[str, int | Sequence[int | None]]"
"""Sizes by symbol, and shapes by input; None in a shape leaves that extent free."""


def specialize(
    program: Program, shapes: Sizes | None = None, limits: Mapping[str, int] | None = None
) -> Program:
    """The program with sizes fixed by symbol or by input shape, and with limits on others.

    Raises:
        UsageError: if a name does not exist or a size contradicts the model.
    """
    from dfcompiler.ir.specialize import bound_symbols, fix_symbols

    fixed = fix_symbols(program, given_sizes(program, shapes or {}))
    return bound_symbols(fixed, dict(limits or {}))


def given_sizes(program: Program, shapes: Sizes) -> dict[str, int]:
    """The values of symbols that sizes by symbol or by input shape fix.

    Raises:
        UsageError: if an input does not exist or a size contradicts the model.
    """
    from dfcompiler.ir.dims import show_dim

    values: dict[str, int] = {}
    for name, size in shapes.items():
        if isinstance(size, int):
            _bind(values, name, size, f"{name} = {size}")
            continue
        container = next((c for c in program.inputs if c.name == name), None)
        if container is None:
            listed = ", ".join(c.name for c in program.inputs)
            raise UsageError(f"the model has no input {name}; its inputs are: {listed}")
        declared = container.type.shape
        if len(declared) != len(size):
            shown = ", ".join(map(show_dim, declared))
            raise UsageError(f"{name} is [{shown}]; {len(size)} sizes were given")
        for dim, extent in zip(declared, size, strict=True):
            _bind_extent(values, name, dim, extent)
    return values


def _bind_extent(values: dict[str, int], name: str, dim: Dim, extent: int | None) -> None:
    from dfcompiler.ir.dims import equal, show_dim

    if extent is None:
        return
    if isinstance(dim, int) or not dim.is_Symbol:
        if not equal(dim, extent):
            raise UsageError(f"{name} has size {show_dim(dim)} where {extent} was given")
        return
    _bind(values, dim.name, extent, f"{name} with {dim.name} = {extent}")


def _bind(values: dict[str, int], symbol: str, size: int, what: str) -> None:
    if values.setdefault(symbol, size) != size:
        raise UsageError(f"{what} contradicts {symbol} = {values[symbol]}, given before")
