"""Recover RMS normalization from means of squares and roots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.analysis.root_mean_square import root_mean_square
from dfcompiler.ir import Op, Program
from dfcompiler.ir.draft import Draft, draft_states
from dfcompiler.ir.match import MismatchError, parameter
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverRmsNorm(Pass):
    """Recovers root-mean-square normalization of the last axis.

    ::

        %1 = pow @x, 2
        %2 = reduce_mean %1 {axes = [-1], keepdims = true}
        %3 = add %2, 1e-06                                   ──▶   %6 = rms_norm @x, @scale
        %4 = rsqrt %3
        %5 = mul @x, %4
        %6 = mul %5, @scale

    The square may be a product, the inverse root a division by a root, and the scale may be
    missing or be multiplied into the inverse root. A scale behind a cast to a lower precision
    stays a product of its own: the normalization itself keeps the precision of the source.

    Skips means over other axes, an epsilon outside the root, and roots that are read elsewhere.
    """

    name: ClassVar[str] = "recover-rms-norm"
    claims: ClassVar[tuple[str, ...]] = ("ops <=", "flops <=", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        return draft_states(program, _rewrite, decline)


def _rewrite(draft: Draft, root: Op) -> None:
    state = draft.state
    found = root_mean_square(state, root)
    if found is None:
        return
    x, last = found.divided, found.user
    if x != found.value:
        raise MismatchError("it divides another value than the one whose root mean square it is")
    inputs = [x, found.scale] if found.scale else [x]
    user = state.only_user(last.result)
    if not found.scale and user is not None and user.kind == "mul" and user.type.same(last.type):
        other = user.inputs[0] if user.inputs[1] == last.result else user.inputs[1]
        scale = parameter(state, other, x)
        if scale is not None:
            inputs, last = [x, scale], user
    draft.op("rms_norm", inputs, {"epsilon": found.epsilon}, source=root.source)
    if not draft.commit(last):
        raise MismatchError("it reads a container that the program writes")
