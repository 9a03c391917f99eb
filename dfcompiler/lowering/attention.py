"""Attention as an `Attention` library node."""

from __future__ import annotations

from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes import Attention
from dfcompiler.lowering.symbolic import contraction_work, expression, product

HEADER = "cpu/attention.h"


def lower_attention(context: Context, op: Op) -> None:
    """One node for the whole of softmax(q·kᵀ·scale + mask)·v.

    Raises:
        UnsupportedError: for element types or an expansion that there is no code for.
    """
    implementation = context.expansion(op, "attention", Attention.implementations)
    _check(context, op)
    causal = bool(op.attr("causal", False))
    node = Attention(
        "attention", float(op.attr("scale")), causal=causal, masked=len(op.inputs) == 4
    )
    node.implementation = implementation
    context.include(HEADER)
    context.add_library_node(op, node, operands(op), attention_work(context, op))
    context.record(_record(op, implementation))


def operands(op: Op) -> dict[str, str]:
    """What an attention reads, by connector; the mask may be missing."""
    return dict(zip(("_q", "_k", "_v", "_mask"), op.inputs, strict=False))


def attention_work(context: Context, op: Op, rate: int = 1) -> Any:
    """Cost of an attention in element-wise operations, multiplying `rate` times as fast."""
    batch, heads, queries, width = (expression(dim) for dim in op.type.shape)
    keys, depth = (expression(dim) for dim in context.type(op.inputs[1]).shape[2:])
    return contraction_work(keys * (depth + width) // rate, product((batch, heads, queries)))


def refuse_tiled(context: Context, op: Op) -> None:
    """Raises the error of an attention that reads or writes a tiled layout."""
    if any(context.type(name).layout.is_tiled for name in (*op.inputs, op.result)):
        raise UnsupportedError("attention does not read or write tiled layouts", location(op))


def _check(context: Context, op: Op) -> None:
    if op.type.dtype not in (DType.F32, DType.F64):
        found = op.type.dtype.value
        raise UnsupportedError(f"there is no attention kernel for {found}", location(op))
    refuse_tiled(context, op)


def _record(op: Op, implementation: str) -> KernelRecord:
    if implementation != "native":
        return KernelRecord(op, f"{implementation} attention", "asked for")
    reason = "panels of 64 queries in lanes, online softmax over 128 keys; scores stay in cache"
    return KernelRecord(op, "native attention", reason)
