"""Programs printed as text: ``parse(show(program)) == program``, see `parser`.

The form is that of `docs/ir.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import sympy

from dfcompiler.ir.dims import show_dim
from dfcompiler.ir.program import Attr, Block, Branch, Container, Loop, Op, Program, State, Symbol
from dfcompiler.ir.types import DType


def show(program: Program) -> str:
    """The text form of a program, ending in a newline."""
    symbols = ", ".join(_show_symbol(s) for s in program.symbols)
    lines = [f"program {_name(program.name)}({symbols}) {{"]
    lines += [f"  {_show_container(c)}" for c in program.containers]
    for block in program.body:
        lines += _show_block(block, "  ")
    return "\n".join([*lines, "}", ""])


def show_op(op: Op, indent: str = "") -> str:
    """The text form of one operator, its region included."""
    return "\n".join(_show_op(op, indent))


def _show_symbol(symbol: Symbol) -> str:
    return symbol.name if symbol.maximum is None else f"{symbol.name} <= {symbol.maximum}"


def _show_container(container: Container) -> str:
    parts = f" of {_show_names(f'@{name}' for name in container.parts)}" * bool(container.parts)
    return f"{container.role.value} {_name('@' + container.name)}: {container.type}{parts}"


def _show_block(block: Block, indent: str) -> list[str]:
    match block:
        case State(name, ops):
            head = f"{indent}state {_name(name)} {{"
            lines = [line for op in ops for line in _show_op(op, indent + "  ")]
        case Loop(name, variable, start, stop, body, until):
            span = f"{show_dim(start)}..{show_dim(stop)}"
            end = f" until {_name(until)}" if until else ""
            head = f"{indent}loop {_name(name)} for {variable} in {span}{end} {{"
            lines = [line for b in body for line in _show_block(b, indent + "  ")]
        case Branch(name, condition, then, orelse):
            head = f"{indent}branch {_name(name)} if {_name(condition)} {{"
            lines = [line for b in then for line in _show_block(b, indent + "  ")]
            if orelse:
                lines.append(f"{indent}}} else {{")
                lines += [line for b in orelse for line in _show_block(b, indent + "  ")]
    return [head, *lines, indent + "}"]


def _show_op(op: Op, indent: str) -> list[str]:
    text = f"{indent}{_name(op.result)}: {op.type} = {op.kind}"
    if op.inputs:
        text += " " + ", ".join(map(_name, op.inputs))
    if op.attrs:
        pairs = ", ".join(f"{key} = {_show_attr(value)}" for key, value in op.attrs.items())
        text += f" {{{pairs}}}"
    if op.source:
        text += f" from {json.dumps(op.source)}"
    if not op.region:
        return [text]
    inner = [line for o in op.region for line in _show_op(o, indent + "  ")]
    return [text + " do", *inner, indent + "end"]


def _show_attr(value: Attr) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case DType():
            return value.value
        case tuple():
            return f"[{', '.join(map(_show_attr, value))}]"
        case float():
            return repr(value)
        case int() | sympy.Expr():
            return show_dim(value)
    raise TypeError(f"attribute value {value!r} has no text form")


def _show_names(names: Iterable[str]) -> str:
    """Names as they stand in the text form, separated by commas."""
    return ", ".join(map(_name, names))


_PLAIN_NAME = re.compile(r"[@%]?[A-Za-z0-9_./:$-]+\Z")


def _name(name: str) -> str:
    """A name, quoted when it has characters that would end it."""
    if _PLAIN_NAME.match(name) and not name.endswith(":") and "::" not in name:
        return name
    sigil = name[:1] if name.startswith(("@", "%")) else ""
    return sigil + json.dumps(name[len(sigil) :])
