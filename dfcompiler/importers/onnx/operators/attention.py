"""Attention and rotary embedding as single operators."""

from __future__ import annotations

import math

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Decline, Node, operator
from dfcompiler.importers.onnx.operators.shape import divided
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType
from dfcompiler.ir.dims import Dim, equal, expand

_PLAIN = {
    "is_causal",
    "kv_num_heads",
    "q_num_heads",
    "qk_matmul_output_mode",
    "scale",
    "softcap",
    "softmax_precision",
}


@operator("Attention")
def _attention(context: Context, node: Node) -> tuple[Value | None, ...]:
    """Plain attention; a cache, a softcap and inner results go through the decomposition."""
    q, k, v = (node.ranked(index, 3, 4) for index in range(3))
    mask = node.optional(3)
    if not q.rank == k.rank == v.rank:
        raise ValueError(f"q, k and v have ranks {q.rank}, {k.rank} and {v.rank}")
    unusual = (
        bool(set(node.attrs) - _PLAIN)
        or any(node.optional(index) is not None for index in range(4, 7))
        or any(node.wants(index) for index in range(1, 4))
        or node.attr("softcap", 0.0)
        or node.attr("qk_matmul_output_mode", 0)
        or q.dtype is not DType.F32
        or (mask is not None and not _covers(mask, k))
    )
    if unusual:
        raise Decline
    packed = q.rank == 3
    if packed:
        q = _heads(context, q, node.attr("q_num_heads"))
        k = _heads(context, k, node.attr("kv_num_heads"))
        v = _heads(context, v, node.attr("kv_num_heads"))
    causal = bool(node.attr("is_causal", 0))
    # The standard lets query i see keys 0…i; the IR lets the last query see the last key.
    if (causal and not equal(q.shape[2], k.shape[2])) or not isinstance(q.shape[3], int):
        raise Decline
    context.unify(q.shape[0], k.shape[0])
    context.unify(k.shape[2], v.shape[2])
    scale = node.attr("scale") or 1.0 / math.sqrt(q.shape[3])
    operands = [q, k, v]
    if mask is not None:
        context.unify(mask.shape[-1], k.shape[2])
        context.broadcast([mask.shape, (q.shape[0], q.shape[1], q.shape[2], k.shape[2])])
        operands.append(mask)
    attrs = {"scale": float(scale), "causal": causal}
    result = context.op("attention", operands, attrs)
    if packed:
        batch, heads, rows, width = result.shape
        result = context.transpose(result, (0, 2, 1, 3))
        result = context.reshape(result, (batch, rows, expand(heads * width)))
    return result, None, None, None


def _covers(mask: Value, k: Value) -> bool:
    """Whether a mask has, or may have, a column for every key."""
    if mask.rank < 2:
        return False
    columns, keys = mask.shape[-1], k.shape[-2]
    return equal(columns, keys) or not (isinstance(columns, int) and isinstance(keys, int))


def _heads(context: Context, x: Value, heads: int | None) -> Value:
    """[batch, rows, heads · width] as [batch, heads, rows, width]."""
    if not heads:
        raise ValueError("q_num_heads or kv_num_heads is missing")
    batch, rows, width = x.shape
    cut = context.reshape(x, (batch, rows, heads, divided([width], [heads])))
    return context.transpose(cut, (0, 2, 1, 3))


@operator("RotaryEmbedding")
def _rotary(context: Context, node: Node) -> Value:
    x, positions = node.ranked(0, 3, 4), node.optional(3)
    rank = 3 if positions is None else 2
    cos, sin = node.ranked(1, rank, rank), node.ranked(2, rank, rank)
    if positions is not None:
        node.ranked(3, 2, 2)
    packed = x.rank == 3
    if packed:
        x = _heads(context, x, node.attr("num_heads"))
    width = x.shape[3]
    turned = int(node.attr("rotary_embedding_dim", 0)) or width
    if not isinstance(width, int) or not isinstance(turned, int):
        raise node.unsupported("heads of unknown width")
    if positions is not None:
        index = context.cast(positions, DType.I64)
        cos, sin = (context.op("gather", [table, index], {"axis": 0}) for table in (cos, sin))
    half = turned // 2
    tables = []
    for table in (cos, sin):
        batch, rows, columns = table.shape
        if not equal(columns, half):
            table = context.slice(table, (0, 0, 0), (batch, rows, half))
        tables.append(context.reshape(table, (batch, 1, rows, half)))
    head = (*x.shape[:3], turned)
    start: tuple[Dim, ...] = (0, 0, 0, 0)
    interleaved = bool(node.attr("interleaved", 0))
    attrs = {"interleaved": interleaved}
    result = context.op("rotary", [context.slice(x, start, head), *tables], attrs)
    if turned != width:
        rest = context.slice(x, (0, 0, 0, turned), (*x.shape[:3], width - turned))
        result = context.op("concat", [result, rest], {"axis": 3})
    if not packed:
        return result
    batch, heads, rows, _ = x.shape
    result = context.transpose(result, (0, 2, 1, 3))
    return context.reshape(result, (batch, rows, expand(heads * width)))
