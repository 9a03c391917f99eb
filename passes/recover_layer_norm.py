"""Recover layer normalization from means, squares and roots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.analysis.root_mean_square import mean_argument, root_mean_square
from dfcompiler.ir import Op, Program
from dfcompiler.ir.draft import Draft, draft_states
from dfcompiler.ir.match import MismatchError, parameter
from dfcompiler.ir.rewrite import StateRewriter
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverLayerNorm(Pass):
    """Recovers layer normalization of the last axis.

    ::

        %1 = reduce_mean @x {axes = [-1], keepdims = true}
        %2 = sub @x, %1
        %3 = mul %2, %2
        %4 = reduce_mean %3 {axes = [-1], keepdims = true}
        %5 = add %4, 1e-12                                   ──▶   %9 = layer_norm @x, @scale, @bias
        %6 = sqrt %5
        %7 = div %2, %6
        %8 = mul %7, @scale
        %9 = add %8, @bias

    The square may be a power, the difference computed twice, the root inverted first, and scale
    and bias missing; a bias without a scale stays an addition.

    Skips a variance computed as E[x²] − E[x]², means over other axes, and a root or a difference
    that is read elsewhere.
    """

    name: ClassVar[str] = "recover-layer-norm"
    claims: ClassVar[tuple[str, ...]] = ("ops <=", "flops <=", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        return draft_states(program, _rewrite, decline)


def _rewrite(draft: Draft, root: Op) -> None:
    state = draft.state
    found = root_mean_square(state, root)
    x = _centered_argument(state, found.value) if found else None
    if found is None or x is None:
        return
    if found.divided != found.value and _centered_argument(state, found.divided) != x:
        raise MismatchError("it divides another value than the one whose deviation it is")
    last, scale, inputs = found.user, found.scale, [x]
    if not scale:
        last, scale = _affine(state, last, "mul", x)
    if scale:
        last, bias = _affine(state, last, "add", x)
        inputs += [scale, bias] if bias else [scale]
    draft.op("layer_norm", inputs, {"epsilon": found.epsilon}, source=root.source)
    if not draft.commit(last):
        raise MismatchError("it reads a container that the program writes")


def _centered_argument(state: StateRewriter, name: str) -> str | None:
    """X when `name` is x minus its mean."""
    op = state.producer(name)
    if op is None or op.kind != "sub":
        return None
    x, mean = op.inputs
    return x if mean_argument(state, mean) == x and state.is_stable(x) else None


def _affine(state: StateRewriter, last: Op, kind: str, x: str) -> tuple[Op, str]:
    """The operator that alone reads `last` and applies a vector, and the vector; else `last`."""
    user = state.only_user(last.result)
    if user is None or user.kind != kind or not user.type.same(last.type):
        return last, ""
    other = user.inputs[0] if user.inputs[1] == last.result else user.inputs[1]
    vector = parameter(state, other, x)
    return (user, vector) if vector else (last, "")
