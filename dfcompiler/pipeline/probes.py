"""Values of the symbols at which programs are measured."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat
from typing import TypeAlias

from dfcompiler.ir import Program

Bindings: TypeAlias = Mapping[str, int]


def default_probes(program: Program) -> tuple[Bindings, ...]:
    """A small and a larger value for every symbol, within its maximum."""
    names = program.symbols
    small = {s.name: _at_most(3 + 2 * i, s.maximum) for i, s in enumerate(names)}
    large = {
        s.name: _at_most(8 * 16**i if i < 2 else 64 + i, s.maximum) for i, s in enumerate(names)
    }
    return (small, large) if small != large else (small,)


def completed(probes: tuple[Bindings, ...], program: Program) -> tuple[Bindings, ...]:
    """The probes with values for the symbols that a pass has added."""
    defaults = default_probes(program)
    return tuple(
        {**default, **probe}
        for default, probe in zip(chain(defaults, repeat(defaults[-1])), probes, strict=False)
    )


def _at_most(value: int, maximum: int | None) -> int:
    return value if maximum is None else min(value, maximum)
