"""Normalize the few rows of a product where they are multiplied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.ir import Op, Program
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass
from passes.fuse_epilogue import fused
from passes.order_weights import ALONG_DEPTH, has_few_rows
from passes.rules.product_operands import operands


@dataclass(frozen=True)
class FuseNorm(Pass):
    """Fuses an RMS normalization into the product of few rows that alone reads it.

    ::

        %0 = rms_norm %x, @g               %1 = fused %x, @g, @w {kernel = "linear"} do
        %1 = matmul %0, @w        ──▶          %.0 = rms_norm %x, @g
                                               %.1 = matmul %.0, @w
                                           end

    A warp that multiplies whole columns walks along all of k: it has the mean square of a row
    beside its sums, and (x·g·r)·w is r·((x·g)·w). The row is a few kilobytes, which every
    multiprocessor finds in its L1 or the L2; a launch of its own would take longer than all of it.

    Skips products whose weight does not lie along k (`order-weights`) or that have another order of
    operands, and rows that something else reads.
    """

    name: ClassVar[str] = "fuse-norm"
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops ==",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        layouts = {f"@{c.name}": c.type.layout for c in program.weights}

        def rule(state: StateRewriter) -> None:
            for norm in state.state.ops:
                if norm.kind != "rms_norm":
                    continue
                user = state.only_user(norm.result)
                names = operands(user) if user is not None else None
                if user is None or names is None or names[0] != norm.result:
                    continue
                reason = _why_not(state, norm, user)
                if layouts.get(names[1]) != ALONG_DEPTH:
                    reason = "the weight behind it does not lie along the depth"
                if reason:
                    decline(norm, reason)
                else:
                    state.replace(user, [_with_norm(norm, user)])

        return rewrite_states(program, rule)


def _why_not(state: StateRewriter, norm: Op, user: Op) -> str:
    if not has_few_rows(user):
        return f"{user.type} has more rows than a warp multiplies at once"
    if not norm.inputs[1].startswith("@"):
        return "its factors are no weight"
    if user.inputs.count(norm.result) != 1 or any(op.kind == "dequantize" for op in user.region):
        return "the product reads it twice, or codes"
    moving = [name for name in norm.inputs if not state.is_stable(name)]
    return f"{moving[0]} may be written before the product" if moving else ""


def _with_norm(norm: Op, user: Op) -> Op:
    """The product with the normalization as the first operator of its region."""
    *ops, last = user.region or (user,)
    kernel = fused([norm, *ops, replace(last, result=user.result)], "linear")
    return replace(kernel, source=user.source)
