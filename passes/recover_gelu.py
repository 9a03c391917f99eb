"""Recover GELU from its erf and tanh formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.ir import Op, Program
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import Gate, close, gates, multiples, polynomial
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass

_SLOPE = math.sqrt(2 / math.pi)
_ARGUMENTS = {
    "erf": ("none", (0.0, math.sqrt(0.5), 0.0, 0.0)),
    "tanh": ("tanh", (0.0, _SLOPE, 0.0, 0.044715 * _SLOPE)),
}


@dataclass(frozen=True)
class RecoverGelu(Pass):
    """Recovers the Gaussian error linear unit, exact and approximated by tanh.

    ::

        %1 = div @x, √2
        %2 = erf %1
        %3 = add %2, 1              ──▶     %5 = gelu @x
        %4 = mul @x, %3
        %5 = mul %4, 0.5

        0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))      ──▶     gelu @x {approximate = "tanh"}

    Factors may stand in any order and the halves anywhere; x³ may be a power or products.

    Skips an erf or tanh of something else than the argument above (QuickGELU is a sigmoid and is
    left to `recover-silu`, which declines it), and one whose intermediate values are read
    elsewhere.
    """

    name: ClassVar[str] = "recover-gelu"
    claims: ClassVar[tuple[str, ...]] = ("ops <=", "flops <=", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            draft = Draft(state)
            for op in state.state.ops:
                if op.kind in _ARGUMENTS:
                    _rewrite(draft, op, decline)

        return rewrite_states(program, rule)


def _rewrite(draft: Draft, function: Op, decline: Decline) -> None:
    state, reason = draft.state, ""
    approximate, expected = _ARGUMENTS[function.kind]
    for gate in gates(state, function):
        if not close(gate.slope, gate.offset):
            continue
        reason = f"its argument is not that of the {function.kind} formula of GELU"
        x = _argument(state, function, gate, expected)
        if x is None:
            continue
        attrs = {"approximate": approximate} if approximate != "none" else {}
        draft.op("gelu", [x], attrs, source=function.source)
        if draft.commit(gate.op):
            return
        reason = "it reads a container that the program writes"
    if function.kind == "erf":
        reason = reason or "it is not multiplied to x·(1 + erf(x/√2))/2, or is read elsewhere"
    if reason:
        decline(function, reason)


def _argument(
    state: StateRewriter, function: Op, gate: Gate, expected: tuple[float, ...]
) -> str | None:
    """X when ``gate = x/2 · (1 + f(polynomial of x))``."""
    for x, multiple in multiples(state, gate.factor):
        if not close(gate.slope * multiple, 0.5) or not state.type_of(x).same(gate.op.type):
            continue
        found = polynomial(state, function.inputs[0], x)
        if found is not None and all(map(close, found, expected)):
            return x
    return None
