"""Programs parsed from text: ``parse(show(program)) == program``, see `printer`.

The grammar is read off `docs/ir.md`; a newline ends an operator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from dfcompiler.errors import UsageError
from dfcompiler.ir.dims import parse_dim
from dfcompiler.ir.program import (
    Attr,
    Attrs,
    Block,
    Branch,
    Container,
    Loop,
    Op,
    Program,
    Role,
    State,
    Symbol,
)
from dfcompiler.ir.types import (
    Affine,
    Bitmap,
    Dense,
    DType,
    Encoding,
    Layout,
    PhysicalAxis,
    TensorType,
)

_ROLES = "|".join(role.value for role in Role)
_NAME = r'(?:[@%]?"(?:[^"\\]|\\.)*"|[@%]?[A-Za-z0-9_./:$-]*[A-Za-z0-9_./$-])'
_VALUE = r'(?:[@%]"(?:[^"\\]|\\.)*"|[@%][A-Za-z0-9_./:$-]*[A-Za-z0-9_./$-])'
_PROGRAM = re.compile(rf"program ({_NAME})\((.*)\) \{{\Z")
_CONTAINER = re.compile(rf"({_ROLES}) +({_NAME}): +(.+?)(?: of ({_VALUE}(?:, {_VALUE})*))?\Z")
_STATE = re.compile(rf"state ({_NAME}) \{{\Z")
_LOOP = re.compile(rf"loop ({_NAME}) for (\w+) in (.+?)\.\.(.+?)(?: until ({_NAME}))? \{{\Z")
_BRANCH = re.compile(rf"branch ({_NAME}) if ({_NAME}) \{{\Z")
_OP = re.compile(
    rf"({_VALUE}): (.+?) = ([a-z_0-9]+)"
    rf"((?: {_VALUE}(?:, {_VALUE})*)?)"
    r"( \{.*\})??"
    r'( from "(?:[^"\\]|\\.)*")?'
    r"( do)?\Z"
)
_TYPE = re.compile(r"(\w+)\[([^\];]*)(?:; ([^\]]*))?\](?: as (\w+)\((.*)\))?\Z")
_PHYSICAL = re.compile(r"(\d+)(?:([/%+])(\d+))?\Z")


def parse(text: str) -> Program:
    """The program that `text` shows; blank lines and ``#`` comments are skipped.

    Raises:
        UsageError: naming the line that does not parse.
    """
    return _Parser(text).program()


def parse_type(text: str) -> TensorType:
    """The type that `text` shows.

    Raises:
        ValueError: if `text` is not a type.
    """
    match = _TYPE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a tensor type such as f32[B, 128]")
    dtype, dims, layout, encoding, arguments = match.groups()
    order = tuple(_physical_axis(axis) for axis in (layout or "").split())
    shape = tuple(parse_dim(dim) for dim in _split(dims))
    return TensorType(DType(dtype), shape, Layout(order), _encoding(encoding, arguments))


def _physical_axis(text: str) -> PhysicalAxis:
    match = _PHYSICAL.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a physical axis such as 0, 1/48, 1%48 or 1+16")
    axis, sign, number = match.groups()
    if sign == "+":
        return PhysicalAxis(int(axis), pad=int(number))
    return PhysicalAxis(int(axis), int(number or 0), sign == "%")


def _encoding(name: str | None, arguments: str | None) -> Encoding:
    match name:
        case None:
            return Dense()
        case "affine":
            bits, axis, group, scale, zero = _split(arguments or "")
            return Affine(int(bits), int(axis), int(group), DType(scale), zero == "1")
        case "bitmap":
            return Bitmap(float(arguments or "1"))
    raise ValueError(f"{name!r} is not an encoding")


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets, parentheses and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for i, char in enumerate(text):
        if char == '"' and text[i - 1 : i] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last or parts else []


def _parse_attr(text: str) -> Attr:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return str(json.loads(text))
    if text.startswith("["):
        return tuple(_parse_attr(part) for part in _split(text[1:-1]))
    if text in DType._value2member_map_:
        return DType(text)
    if text in ("inf", "-inf", "nan"):
        return float(text)
    try:
        return parse_dim(text)
    except ValueError:
        return float(text)


def _parse_attrs(text: str) -> Attrs:
    pairs = (part.split(" = ", 1) for part in _split(text))
    return Attrs({key: _parse_attr(value) for key, value in pairs})


def _unquote(name: str) -> str:
    sigil = name[:1] if name.startswith(("@", "%")) else ""
    rest = name[len(sigil) :]
    return sigil + (json.loads(rest) if rest.startswith('"') else rest)


Result = TypeVar("Result")


class _Parser:
    """Reads one line at a time; every construct starts on its own line."""

    def __init__(self, text: str) -> None:
        numbered = enumerate((line.strip() for line in text.splitlines()), 1)
        self.lines = [(n, line) for n, line in numbered if line and not line.startswith("#")]
        self.at = 0

    def program(self) -> Program:
        match = self.expect(_PROGRAM, "program NAME(SYMBOLS) {")
        name, symbols = match.groups()
        containers: list[Container] = []
        while (found := self.accept(_CONTAINER)) is not None:
            role, container, type_text, part_names = found.groups()
            tensor = self.checked(parse_type, type_text)
            parts = tuple(_unquote(name)[1:] for name in _split(part_names or ""))
            containers.append(Container(Role(role), _unquote(container)[1:], tensor, parts))
        body = self.blocks()
        if self.at < len(self.lines):
            self.fail("the end of the text")
        table = tuple(self.symbol(part) for part in _split(symbols))
        return Program(_unquote(name), table, tuple(containers), body)

    def symbol(self, text: str) -> Symbol:
        name, _, maximum = text.partition(" <= ")
        return Symbol(name, int(maximum) if maximum else None)

    def blocks(self) -> tuple[Block, ...]:
        found: list[Block] = []
        while self.peek() not in ("}", "} else {"):
            found.append(self.block())
        if self.peek() == "}":
            self.at += 1
        return tuple(found)

    def block(self) -> Block:
        if (match := self.accept(_STATE)) is not None:
            name = _unquote(match[1])
            return State(name, self.ops("}"))
        if (match := self.accept(_LOOP)) is not None:
            label, variable, start, stop, until = match.groups()
            bounds = self.checked(parse_dim, start), self.checked(parse_dim, stop)
            return Loop(_unquote(label), variable, *bounds, self.blocks(), _unquote(until or ""))
        match = self.expect(_BRANCH, "state, loop, branch or }")
        then = self.blocks()
        orelse: tuple[Block, ...] = ()
        if self.at < len(self.lines) and self.peek() == "} else {":
            self.at += 1
            orelse = self.blocks()
        return Branch(_unquote(match[1]), _unquote(match[2]), then, orelse)

    def ops(self, end: str) -> tuple[Op, ...]:
        found: list[Op] = []
        while self.peek() != end:
            found.append(self.op())
        self.at += 1
        return tuple(found)

    def op(self) -> Op:
        match = self.expect(_OP, "RESULT: TYPE = KIND INPUTS {ATTRS}")
        result, type_text, kind, inputs, attrs, source, do = match.groups()
        tensor = self.checked(parse_type, type_text)
        names = tuple(_unquote(name) for name in _split(inputs or ""))
        pairs = self.checked(_parse_attrs, (attrs or "").strip()[1:-1])
        origin = json.loads(source.removeprefix(" from ")) if source else ""
        region = self.ops("end") if do else ()
        return Op(_unquote(result), tensor, kind, names, pairs, origin, region)

    def peek(self) -> str:
        if self.at == len(self.lines):
            self.fail("}")
        return self.lines[self.at][1]

    def accept(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.peek())
        self.at += match is not None
        return match

    def expect(self, pattern: re.Pattern[str], form: str) -> re.Match[str]:
        match = self.accept(pattern)
        if match is None:
            self.fail(form)
        return match

    def checked(self, function: Callable[[str], Result], text: str) -> Result:
        """`function(text)`, its ValueError turned into an error at the last line."""
        try:
            return function(text)
        except ValueError as error:
            number, line = self.lines[max(self.at - 1, 0)]
            raise UsageError(f"{error}", (f"line {number}", f"  > {line}")) from error

    def fail(self, expected: str) -> NoReturn:
        if self.at == len(self.lines):
            raise UsageError(f"the program's text ends where {expected} is expected")
        number, line = self.lines[self.at]
        raise UsageError(f"expected {expected}", (f"line {number}", f"  > {line}"))
