"""Programs of one state, from the text of its operators and containers."""

from __future__ import annotations

from dfcompiler.ir import Program, parse, verify

COPY = "@y: f32[S, 4] = copy @x"
"""For `program_with`: an operator that writes its output."""


def program_of(ops: str, containers: str, symbols: str = "") -> Program:
    """The verified program whose only state holds these operators, one a line."""
    body = "\n".join(f"    {line.strip()}" for line in ops.strip().splitlines())
    declared = "\n".join(f"  {line.strip()}" for line in containers.strip().splitlines())
    return verify(parse(f"program p({symbols}) {{\n{declared}\n  state main {{\n{body}\n  }}\n}}"))


def program_with(*ops: str, more: str = "", containers: str = "") -> Program:
    """A program that is not verified, over inputs, a weight and an output of its own."""
    body = "\n".join(f"    {op}" for op in ops)
    return parse(
        f"""program p(S) {{
  input @x: f32[S, 4]
  input @i: i64[S]
  weight @w: f32[4, 4]
  temp @t: f32[S, 4]
  output @y: f32[S, 4]
{containers}
  state main {{
{body}
  }}
{more}
}}"""
    )
