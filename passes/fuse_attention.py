"""Read the cache and what is new of keys and values where they are, in one attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.analysis.gpu_attention import STEP_ROWS, STEP_WIDTHS
from dfcompiler.ir import DType, Op, Program
from dfcompiler.ir.dims import equal
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass
from passes.fuse_epilogue import fused


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Fuses rotations and concatenations of few new tokens into the attention that reads them.

    ::

        %q = rotary %0, @c, @s             %o = fused %0, @c, @s, %1, … {kernel = "attention"} do
        %k = rotary %1, @c, @s                 %.0 = rotary %0, @c, @s
        %keys = concat %past, %k               %.1 = rotary %1, @c, @s
        %values = concat %old, %v     ──▶      %.2 = concat %past, %.1
        %o = attention %q, %keys, %values      %.3 = concat %old, %v
                                               %.4 = attention %.0, %.2, %.3
                                           end

    In decoding a concatenation copies the cache for each token, and each of these operators is a
    launch that takes longer than the few rows which it is about.

    Skips masks, keys or values that something else reads (a cache that is handed out), more
    queries of a key head than the kernel has, and heads with angles of their own.
    """

    name: ClassVar[str] = "fuse-attention"
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops ==",
        "moved_bytes <=",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            for op in state.state.ops:
                if op.kind != "attention":
                    continue
                k, v = (state.producer(name) for name in op.inputs[1:3])
                if k is None or v is None or {k.kind, v.kind} != {"concat"}:
                    continue
                reason = _why_not(state, op, k, v)
                if reason:
                    decline(op, reason)
                    continue
                before = [*_rotations(state, op, k), *dict.fromkeys((k, v))]
                state.replace(op, [fused([*before, op], "attention")])

        return rewrite_states(program, rule)


def _why_not(state: StateRewriter, op: Op, k: Op, v: Op) -> str:
    if len(op.inputs) > 3:
        return "its mask is read score by score"
    if k is v or any(state.only_user(one.result) is not op for one in (k, v)):
        return "something else reads its keys or values"
    if any(len(one.inputs) != 2 or one.attr("axis") != 2 for one in (k, v)):
        return "its keys or values are no two parts along their axis"
    q, past, old = (state.type_of(n) for n in (op.inputs[0], k.inputs[0], v.inputs[0]))
    if op.type.dtype not in (DType.F32, DType.BF16, DType.F16):
        return f"there is no kernel for {op.type.dtype.value}"
    if q.shape[3] not in STEP_WIDTHS or not equal(q.shape[3], old.shape[3]):
        widths = f"{q.shape[3]} and {old.shape[3]}"
        return f"heads of {widths} elements; there are kernels for {STEP_WIDTHS}"
    if not equal(past.shape[2], old.shape[2]):
        return "its keys are cut elsewhere than its values"
    counts = (q.shape[1], q.shape[2], past.shape[1])
    if not all(isinstance(count, int) for count in counts):
        return "its heads or queries vary"
    heads, queries, key_heads = (int(count) for count in counts)
    if heads // key_heads * queries > STEP_ROWS:
        return f"{heads // key_heads * queries} queries read one key head, more than {STEP_ROWS}"
    moving = [n for one in (op, k, v, *_rotations(state, op, k)) for n in one.inputs]
    moving = [name for name in moving if not state.is_stable(name)]
    return f"{moving[0]} may be written before the attention" if moving else ""


def _rotations(state: StateRewriter, op: Op, k: Op) -> list[Op]:
    """The rotations of the queries and of the new keys that join: both, by the same angles."""
    q, fresh = state.producer(op.inputs[0]), state.producer(k.inputs[1])
    if q is None or fresh is None or {q.kind, fresh.kind} != {"rotary"} or q is fresh:
        return []
    if state.only_user(q.result) is not op or state.only_user(fresh.result) is not k:
        return []
    if (q.inputs[1:], q.attrs) != (fresh.inputs[1:], fresh.attrs):
        return []
    angles = [state.type_of(name).shape for name in q.inputs[1:]]
    if any(len(shape) > 2 and shape[-3] != 1 for shape in angles):
        return []
    same = equal(q.type.shape[2], fresh.type.shape[2])
    return [q, fresh] if same else []
