"""Recover SiLU from its sigmoid and exponential formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.ir import Op, Program
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import close, gates, multiples, polynomial
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverSilu(Pass):
    """Recovers the sigmoid linear unit, also called Swish.

    ::

        %1 = sigmoid @x             ──▶     %2 = silu @x
        %2 = mul @x, %1

        %1 = neg @x
        %2 = exp %1                 ──▶     %4 = silu @x
        %3 = add %2, 1
        %4 = div @x, %3

    Skips sigmoids that gate another value, QuickGELU (sigmoid(1.702·x)·x), and a sigmoid that is
    read elsewhere.
    """

    name: ClassVar[str] = "recover-silu"
    claims: ClassVar[tuple[str, ...]] = ("ops <=", "flops <=", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            draft = Draft(state)
            for op in state.state.ops:
                match op.kind:
                    case "sigmoid":
                        _rewrite_sigmoid(draft, op, decline)
                    case "exp":
                        _rewrite_exponential(draft, op, decline)

        return rewrite_states(program, rule)


def _rewrite_sigmoid(draft: Draft, sigmoid: Op, decline: Decline) -> None:
    state, reason = draft.state, ""
    for gate in gates(state, sigmoid):
        if gate.offset:
            continue
        reason = "it gates another value than its argument"
        for x, multiple in multiples(state, gate.factor):
            found = polynomial(state, sigmoid.inputs[0], x)
            if found is None or any((found[0], found[2], found[3])):
                continue
            if not close(found[1], 1.0):
                reason = f"it is x·sigmoid({found[1]:.4g}·x), not x·sigmoid(x)"
                continue
            if close(gate.slope * multiple, 1.0) and state.type_of(x).same(gate.op.type):
                draft.op("silu", [x], source=sigmoid.source)
                if draft.commit(gate.op):
                    return
                reason = "it reads a container that the program writes"
    if reason:
        decline(sigmoid, reason)


def _rewrite_exponential(draft: Draft, exponential: Op, decline: Decline) -> None:
    """``x / (1 + exp(-x))``, the quotient perhaps a product with a reciprocal."""
    state = draft.state
    total = state.only_user(exponential.result)
    if total is None or total.kind != "add" or not any(state.scalar(n) == 1 for n in total.inputs):
        return
    divisor, last = total.result, state.only_user(total.result)
    inverse = last is not None and last.kind == "reciprocal"
    if last is not None and inverse:
        divisor, last = last.result, state.only_user(last.result)
    if last is None or last.kind != ("mul" if inverse else "div"):
        return
    left, right = last.inputs
    x = right if inverse and left == divisor else left
    if (inverse or right == divisor) and state.type_of(x).same(last.type):
        if polynomial(state, exponential.inputs[0], x) != (0.0, -1.0, 0.0, 0.0):
            decline(exponential, "1 / (1 + exp(…)) does not multiply the negated argument")
            return
        draft.op("silu", [x], source=exponential.source)
        if not draft.commit(last):
            decline(exponential, "it reads a container that the program writes")
