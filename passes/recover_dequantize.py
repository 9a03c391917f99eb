"""Recover the dequantization of 8-bit codes from casts and products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.ir import DType, Op, Program, TensorType
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import through
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverDequantize(Pass):
    """Recovers scaled 8-bit codes, so that weights stay codes until a kernel reads them.

    ::

        %1 = cast @codes {to = f32}
        %2 = sub %1, @zero                ──▶     %3 = dequantize @codes, @scale, @zero
        %3 = mul %2, @scale

    The zero point may be missing, and may itself be a cast of codes. It runs before
    `fold-constants`, which would otherwise expand the codes of weights; `dequantize` is never
    folded.

    Skips casts of codes that no scale multiplies, scales that broadcast the codes to another
    shape, and integers of more than 8 bits, which are indices or accumulators.
    """

    name: ClassVar[str] = "recover-dequantize"
    claims: ClassVar[tuple[str, ...]] = ("ops <=", "flops <=", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            draft = Draft(state)
            for op in state.state.ops:
                if _casts_codes(state, op) and not _is_zero_point(state, op):
                    reason = _rewrite(draft, op)
                    if reason:
                        decline(op, reason)

        return rewrite_states(program, rule)


def _casts_codes(state: StateRewriter, op: Op) -> bool:
    if op.kind != "cast" or not op.type.dtype.is_float:
        return False
    return state.type_of(op.inputs[0]).dtype in (DType.I8, DType.U8)


def _is_zero_point(state: StateRewriter, cast: Op) -> bool:
    """Whether the cast codes are what other codes are shifted by."""
    user = state.only_user(cast.result)
    return user is not None and user.kind == "sub" and user.inputs[1] == cast.result


def _rewrite(draft: Draft, cast: Op) -> str:
    """Replaces the products that scale the codes; the reason if there is one that it cannot."""
    state, (codes,) = draft.state, cast.inputs
    reason = "" if state.users(cast.result) else "nothing reads it"
    for user in state.users(cast.result):
        value, zero = cast.result, ""
        product: Op | None = user
        if user.kind == "sub" and user.inputs[0] == cast.result:
            value, zero, product = user.result, user.inputs[1], state.only_user(user.result)
        if product is None or product.kind != "mul" or product.inputs[0] == product.inputs[1]:
            reason = "no scale multiplies the codes"
            continue
        scale = product.inputs[1] if product.inputs[0] == value else product.inputs[0]
        if not product.type.same(TensorType(cast.type.dtype, state.type_of(codes).shape)):
            reason = "the scale broadcasts the codes to another shape"
            continue
        inputs = [codes, scale] + ([_codes_of_zero(state, zero)] if zero else [])
        draft.op("dequantize", inputs, source=product.source)
        if not draft.commit(product):
            reason = "it reads a container that the program writes"
    return reason


def _codes_of_zero(state: StateRewriter, zero: str) -> str:
    """The codes behind a cast zero point, or the zero point itself."""
    codes = through(state, zero, "cast")
    return codes if state.type_of(codes).dtype in (DType.I8, DType.U8) else zero
