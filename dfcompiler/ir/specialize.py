"""Programs over fewer symbols: sizes fixed or bounded before compilation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dfcompiler.errors import UsageError
from dfcompiler.ir.dims import substitute
from dfcompiler.ir.program import Block, Branch, Loop, Program, State, Symbol
from dfcompiler.ir.rewrite import substitute_symbols


def fix_symbols(program: Program, values: Mapping[str, int]) -> Program:
    """The program with some symbols replaced by numbers.

    Raises:
        UsageError: if a symbol does not exist or its value is not allowed.
    """
    if not values:
        return program
    _check(program, values, "fixed to")

    def block(one: Block) -> Block:
        match one:
            case State():
                return replace(one, ops=substitute_symbols(one.ops, values))
            case Branch():
                return replace(one, then=blocks(one.then), orelse=blocks(one.orelse))
            case Loop():
                start, stop = substitute(one.start, values), substitute(one.stop, values)
                return replace(one, start=start, stop=stop, body=blocks(one.body))

    def blocks(many: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(map(block, many))

    containers = tuple(
        replace(c, type=replace(c.type, shape=tuple(substitute(d, values) for d in c.type.shape)))
        for c in program.containers
    )
    symbols = tuple(s for s in program.symbols if s.name not in values)
    return replace(program, symbols=symbols, containers=containers, body=blocks(program.body))


def bound_symbols(program: Program, maxima: Mapping[str, int]) -> Program:
    """The program with upper limits on some symbols; a limit is never raised.

    Raises:
        UsageError: if a symbol does not exist or the limit is above the model's own.
    """
    if not maxima:
        return program
    _check(program, maxima, "limited to")
    symbols = tuple(Symbol(s.name, maxima.get(s.name, s.maximum)) for s in program.symbols)
    return replace(program, symbols=symbols)


def _check(program: Program, values: Mapping[str, int], verb: str) -> None:
    known = {symbol.name: symbol.maximum for symbol in program.symbols}
    for name, value in values.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UsageError(f"the model has no free size {name}; its free sizes are: {listed}")
        if not isinstance(value, int):
            raise UsageError(f"{name} = {value!r} is no integer")
        maximum = known[name]
        if value < 1 or (maximum is not None and value > maximum):
            allowed = f"1 to {maximum}" if maximum is not None else "1 and more"
            raise UsageError(f"{name} cannot be {verb} {value}; the model takes {allowed}")
