"""Loops that a GPU can run from one graph: all iterations enqueue the same kernels."""

from __future__ import annotations

from collections.abc import Iterator

from dfcompiler.ir.dims import free_symbols
from dfcompiler.ir.program import Attr, Block, Branch, Loop, Op, blocks_in, ops_in


def why_not_captured(loop: Loop) -> str:
    """Why the host has a part in the iterations of a loop; empty if it has none."""
    if reason := why_host_decides(loop):
        return reason
    found = next(mentioning(loop.body, loop.variable), None)
    return f"{found.kind} {found.result} depends on {loop.variable}" if found else ""


def why_host_decides(loop: Loop) -> str:
    """Like `why_not_captured`, whatever the operators of the loop depend on."""
    for block in blocks_in(loop.body):
        match block:
            case Branch(name=name):
                return f"the host decides the branch {name}"
            case Loop(name=name, until=until) if until:
                return f"the host ends the loop {name} inside of it"
            case Loop(name=name) if loop.variable in free_symbols(block.start, block.stop):
                return f"the loop {name} inside of it depends on {loop.variable}"
    return ""


def mentioning(blocks: tuple[Block, ...], symbol: str) -> Iterator[Op]:
    """The operators whose extents or attributes have a symbol in them."""
    return (op for op in ops_in(blocks) if _mentions(op, symbol))


def _mentions(op: Op, symbol: str) -> bool:
    dims = (*op.type.shape, *op.attrs.values())
    return symbol in free_symbols(*_dims(dims)) or any(_mentions(o, symbol) for o in op.region)


def _dims(values: tuple[Attr, ...]) -> Iterator[Attr]:
    for value in values:
        if isinstance(value, tuple):
            yield from _dims(value)
        elif hasattr(value, "free_symbols"):
            yield value
