"""Attention of bfloat16 operands as an `AttentionBf16` library node."""

from __future__ import annotations

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.attention import attention_work, operands, refuse_tiled
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes import AttentionBf16

HEADER = "cpu/attention_bf16.h"
# A tile sums over 32 elements of a head; the kernel's buffers hold 256.
WIDTH_STEP, MOST_WIDTH = 32, 256
# Tiles multiply faster than vectors; the softmax does not get faster.
_RATE = 3


def is_bf16_attention(context: Context, op: Op) -> bool:
    """Whether an attention operator takes bfloat16."""
    return all(context.type(name).dtype is DType.BF16 for name in op.inputs[:3])


def lower_bf16_attention(context: Context, op: Op) -> None:
    """One node for the whole of softmax(q·kᵀ·scale + mask)·v.

    Raises:
        UnsupportedError: for targets, masks or head widths that there is no code for.
    """
    _check(context, op)
    causal, masked = bool(op.attr("causal", False)), len(op.inputs) == 4
    node = AttentionBf16("attention", float(op.attr("scale")), causal=causal, masked=masked)
    node.implementation = context.expansion(op, "attention", AttentionBf16.implementations)
    context.include(HEADER)
    context.add_library_node(op, node, operands(op), attention_work(context, op, _RATE))
    reason = "tiles of the processor (AMX), weights rounded to bfloat16; softmax in float"
    extension = context.cpu.extension
    context.record(KernelRecord(op, "native attention bf16", reason, extension))


def _check(context: Context, op: Op) -> None:
    where = location(op)
    if context.cpu.extension != "amx":
        raise UnsupportedError(
            f"attention of bfloat16 needs matrix tiles (AMX), which {context.cpu.name} lacks",
            where,
        )
    for name in op.inputs[1:3]:
        width = context.type(name).shape[3]
        if not (isinstance(width, int) and width % WIDTH_STEP == 0 and width <= MOST_WIDTH):
            raise UnsupportedError(
                f"attention of bfloat16 takes heads of {WIDTH_STEP}, {2 * WIDTH_STEP}, … "
                f"{MOST_WIDTH} elements, not {width}",
                where,
            )
    if len(op.inputs) == 4 and context.type(op.inputs[3]).dtype not in (DType.BOOL, DType.F32):
        raise UnsupportedError("its mask is neither bool nor f32", where)
    refuse_tiled(context, op)
