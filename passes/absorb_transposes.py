"""Let kernels read and write the order that values already have, instead of transposing them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dfcompiler.ir import Layout, Op, Program, TensorType
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass

STRIDED_OPERANDS = {"attention": (0, 1, 2), "rotary": (0,), "index_copy": (2,)}
"""Operands that a kernel reads by strides, as fast as in row-major order."""


@dataclass(frozen=True)
class AbsorbTransposes(Pass):
    """Turns transposes around attention into views, by giving values another physical order.

    ::

        %2: f32[B, 12, S, 32] = transpose %1            # %1: f32[B, S, 12, 32]
        %3: f32[B, 12, S, 32] = attention %2, …
        %4: f32[B, S, 12, 32] = transpose %3

                ──▶     %2: f32[B, 12, S, 32; 0 2 1 3] = transpose %1
                        %3: f32[B, 12, S, 32; 0 2 1 3] = attention %2, …
                        %4: f32[B, S, 12, 32] = transpose %3

    The transposes stay in the program and cost nothing: `plan-buffers` makes them aliases. The
    elements along the last axis stay neighbours, which is what the kernels' vectors need.

    Skips transposes that move the last axis, values that an operator without strided access
    reads too, and what is written to a container.
    """

    name: ClassVar[str] = "absorb-transposes"
    claims: ClassVar[tuple[str, ...]] = ("ops ==", "flops ==", "moved_bytes <=", "weight_bytes ==")

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            for op in state.state.ops:
                if op.kind != "transpose":
                    continue
                reason = _absorb(state, op)
                if reason:
                    decline(op, reason)

        return rewrite_states(program, rule)


def _absorb(state: StateRewriter, transpose: Op) -> str:
    """Makes one transpose a view; the reason if it stays a copy."""
    perm = transpose.attr("perm")
    if perm[-1:] != (len(perm) - 1,):
        return "it moves the last axis, along which kernels read vectors"
    source = state.producer(transpose.inputs[0])
    if source is not None and source.kind == "attention":
        if state.only_user(source.result) is not transpose:
            return "what it transposes is read elsewhere too"
        state.replace(source, [_ordered(source, perm)])
        return ""
    if transpose.result.startswith("@"):
        return "it is written to a container"
    if not state.type_of(transpose.inputs[0]).layout.is_row_major:
        return "its input is not row-major"
    for user in state.users(transpose.result):
        strided = STRIDED_OPERANDS.get(user.kind, ())
        if any(n == transpose.result and i not in strided for i, n in enumerate(user.inputs)):
            return f"{user.kind} reads it in row-major order"
    state.replace(transpose, [_ordered(transpose, np.argsort(perm))])
    return ""


def _ordered(op: Op, order: tuple[int, ...] | np.ndarray) -> Op:
    """The operator with its result's axes in another physical order."""
    layout = Layout.permuted(*map(int, order))
    return replace(op, type=TensorType(op.type.dtype, op.type.shape, layout, op.type.encoding))
