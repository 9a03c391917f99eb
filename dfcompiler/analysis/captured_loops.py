"""Loops that a GPU can run from one graph: all iterations enqueue the same kernels."""

from __future__ import annotations

from collections.abc import Iterator

from dfcompiler.ir.dims import free_symbols
from dfcompiler.ir.program import Attr, Block, Branch, Loop, Op, State


def why_not_captured(loop: Loop) -> str:
    """Why the host has a part in the iterations of a loop; empty if it has none."""
    if decided := next(_decided(loop.body), ""):
        return decided
    if found := next(mentioning(loop.body, loop.variable), None):
        return f"{found.kind} {found.result} depends on {loop.variable}"
    return next(_bounded(loop.body, loop.variable), "")


def why_host_decides(loop: Loop) -> str:
    """Like `why_not_captured`, whatever the operators of the loop depend on."""
    return next(_decided(loop.body), "") or next(_bounded(loop.body, loop.variable), "")


def mentioning(blocks: tuple[Block, ...], symbol: str) -> Iterator[Op]:
    """The operators whose extents or attributes have a symbol in them."""
    for block in blocks:
        match block:
            case State(ops=ops):
                yield from (op for op in ops if _mentions(op, symbol))
            case Loop(body=body):
                yield from mentioning(body, symbol)
            case Branch(then=then, orelse=orelse):
                yield from mentioning((*then, *orelse), symbol)


def _mentions(op: Op, symbol: str) -> bool:
    dims = (*op.type.shape, *op.attrs.values())
    return symbol in free_symbols(*_dims(dims)) or any(_mentions(o, symbol) for o in op.region)


def _dims(values: tuple[Attr, ...]) -> Iterator[Attr]:
    for value in values:
        if isinstance(value, tuple):
            yield from _dims(value)
        elif hasattr(value, "free_symbols"):
            yield value


def _decided(blocks: tuple[Block, ...]) -> Iterator[str]:
    """What the host decides on data inside of blocks."""
    for block in blocks:
        match block:
            case Branch(name=name):
                yield f"the host decides the branch {name}"
            case Loop(name=name, until=until, body=body):
                if until:
                    yield f"the host ends the loop {name} inside of it"
                yield from _decided(body)


def _bounded(blocks: tuple[Block, ...], symbol: str) -> Iterator[str]:
    """Loops inside of blocks whose iterations depend on a symbol."""
    for block in blocks:
        if isinstance(block, Loop):
            if symbol in free_symbols(block.start, block.stop):
                yield f"the loop {block.name} inside of it depends on {symbol}"
            yield from _bounded(block.body, symbol)
