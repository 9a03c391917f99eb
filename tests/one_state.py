"""Programs of one state, from the text of its operators and containers."""

from __future__ import annotations

from dfcompiler.ir import Program, parse, verify


def program_of(ops: str, containers: str, symbols: str = "") -> Program:
    """The verified program whose only state holds these operators, one a line."""
    body = "\n".join(f"    {line.strip()}" for line in ops.strip().splitlines())
    declared = "\n".join(f"  {line.strip()}" for line in containers.strip().splitlines())
    return verify(parse(f"program p({symbols}) {{\n{declared}\n  state main {{\n{body}\n  }}\n}}"))
