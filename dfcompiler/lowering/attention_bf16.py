"""Attention of bfloat16 operands as an `AttentionBf16` library node."""

from __future__ import annotations

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes import AttentionBf16
from dfcompiler.lowering.symbolic import contraction_work, expression, product

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
    node.implementation = "native"
    context.include(HEADER)
    reads = dict(zip(("_q", "_k", "_v", "_mask"), op.inputs, strict=False))
    batch, heads, queries, width = (expression(dim) for dim in op.type.shape)
    keys, depth = (expression(dim) for dim in context.type(op.inputs[1]).shape[2:])
    work = contraction_work(keys * (depth + width) // _RATE, product((batch, heads, queries)))
    context.add_library_node(op, node, reads, work)
    reason = "tiles of the processor (AMX), weights rounded to bfloat16; softmax in float"
    extension = context.cpu.extension
    context.record(KernelRecord(op, "native attention bf16", reason, extension))


def _check(context: Context, op: Op) -> None:
    where = (f"{op.result}: {op.type} = attention {', '.join(op.inputs)}", op.source)
    if context.expansions.get("attention", "native") != "native":
        raise UnsupportedError("attention of bfloat16 has a native expansion only", where)
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
    if any(context.type(name).layout.is_tiled for name in (*op.inputs, op.result)):
        raise UnsupportedError("attention does not read or write tiled layouts", where)
