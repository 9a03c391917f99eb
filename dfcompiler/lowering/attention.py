"""Attention as an `Attention` library node."""

from __future__ import annotations

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes import Attention
from dfcompiler.lowering.symbolic import contraction_work, expression, product

HEADER = "cpu/attention.h"


def lower_attention(context: Context, op: Op) -> None:
    """One node for the whole of softmax(q·kᵀ·scale + mask)·v.

    Raises:
        UnsupportedError: for element types or an expansion that there is no code for.
    """
    implementation = context.expansions.get("attention", "native")
    _check(context, op, implementation)
    causal = bool(op.attr("causal", False))
    node = Attention(
        "attention", float(op.attr("scale")), causal=causal, masked=len(op.inputs) == 4
    )
    node.implementation = implementation
    context.include(HEADER)
    reads = dict(zip(("_q", "_k", "_v", "_mask"), op.inputs, strict=False))
    batch, heads, queries, width = (expression(dim) for dim in op.type.shape)
    keys, depth = (expression(dim) for dim in context.type(op.inputs[1]).shape[2:])
    work = contraction_work(keys * (depth + width), product((batch, heads, queries)))
    context.add_library_node(op, node, reads, work)
    context.record(_record(op, implementation))


def _check(context: Context, op: Op, implementation: str) -> None:
    where = (f"{op.result}: {op.type} = attention {', '.join(op.inputs)}", op.source)
    if implementation not in Attention.implementations:
        known = ", ".join(sorted(Attention.implementations))
        message = f"attention has no expansion {implementation!r}; there are {known}"
        raise UnsupportedError(message, where)
    if op.type.dtype not in (DType.F32, DType.F64):
        raise UnsupportedError(f"there is no attention kernel for {op.type.dtype.value}", where)
    if any(context.type(name).layout.is_tiled for name in (*op.inputs, op.result)):
        raise UnsupportedError("attention does not read or write tiled layouts", where)


def _record(op: Op, implementation: str) -> KernelRecord:
    if implementation != "native":
        return KernelRecord(op, f"{implementation} attention", "asked for")
    reason = "panels of 64 queries in lanes, online softmax over 128 keys; scores stay in cache"
    return KernelRecord(op, "native attention", reason)
