"""Tensor contractions: matrix product and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dfcompiler.ir.dims import Dim, equal, show_dim
from dfcompiler.ir.operators.spec import (
    Array,
    OpClass,
    OpSpec,
    Types,
    broadcast_shapes,
    same_dtype,
)
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType


def _matmul(op: Op, types: Types) -> TensorType:
    a, b = types
    if a.rank < 2 or b.rank < 2:
        raise ValueError(f"matmul takes matrices, not ranks {a.rank} and {b.rank}")
    if not equal(a.shape[-1], b.shape[-2]):
        raise ValueError(
            f"inner extents {show_dim(a.shape[-1])} and {show_dim(b.shape[-2])} differ"
        )
    batch = broadcast_shapes([a.shape[:-2], b.shape[:-2]])
    operands = same_dtype(types)
    wide = op.attr("accumulate", None) or operands
    if wide is not operands and not (operands.is_float and wide.is_float):
        raise ValueError(f"products of {operands.value} cannot be added up in {wide.value}")
    return TensorType(wide, (*batch, a.shape[-2], b.shape[-1]))


def _matmul_flops(op: Op, types: Types) -> Dim:
    return 2 * op.type.elements * types[0].shape[-1]


def _matmul_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    wide = op.attr("accumulate", None)
    if wide is not None:
        inputs = [x.astype(np.promote_types(x.dtype, wide.numpy)) for x in inputs]
    return np.asarray(np.matmul(*inputs))


def _attention(op: Op, types: Types) -> TensorType:
    q, k, v = types[:3]
    if not q.rank == k.rank == v.rank == 4:
        raise ValueError("attention takes q, k, v of rank 4: [batch, heads, tokens, width]")
    if not equal(q.shape[3], k.shape[3]):
        raise ValueError(
            f"q is {show_dim(q.shape[3])} wide and k {show_dim(k.shape[3])}: they must agree"
        )
    if not (equal(k.shape[1], v.shape[1]) and equal(k.shape[2], v.shape[2])):
        raise ValueError("k and v differ in heads or tokens")
    heads, kv_heads = q.shape[1], k.shape[1]
    if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
        raise ValueError(f"{heads} query heads are no multiple of {kv_heads} key heads")
    if len(types) == 4:
        mask = types[3]
        if mask.dtype not in (DType.BOOL, q.dtype, DType.F32):
            raise ValueError(f"the mask is {mask.dtype.value}, neither bool nor {q.dtype.value}")
        broadcast_shapes([mask.shape, (*q.shape[:3], k.shape[2])])
    return TensorType(same_dtype(types[:3]), (*q.shape[:3], v.shape[3]))


def _attention_flops(op: Op, types: Types) -> Dim:
    q, k, v = types[:3]
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    return scores * (2 * q.shape[3] + 2 * v.shape[3] + 5)


def _attention_reference(op: Op, inputs: Sequence[Array], bindings: Mapping[str, int]) -> Array:
    dtype = inputs[0].dtype
    wide = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    q, k, v = (x.astype(wide) for x in inputs[:3])
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * wide.type(op.attr("scale"))
    if len(inputs) == 4:
        mask = inputs[3]
        if mask.dtype == np.bool_:
            scores = np.where(mask, scores, q.dtype.type(-np.inf))
        else:
            scores = scores + mask.astype(q.dtype)
    if op.attr("causal", False):
        rows, columns = scores.shape[-2:]
        visible = np.arange(columns) <= np.arange(rows)[:, None] + (columns - rows)
        scores = np.where(visible, scores, q.dtype.type(-np.inf))
    peak = np.max(scores, axis=-1, keepdims=True)
    masked = np.isneginf(peak)
    weights = np.exp(scores - np.where(masked, 0, peak))
    total = np.sum(weights, axis=-1, keepdims=True)
    weights = np.where(masked, 0, weights / np.where(masked, 1, total)).astype(wide)
    return np.asarray(np.matmul(weights, v)).astype(dtype)


ROWS = (
    OpSpec(
        "matmul",
        OpClass.CONTRACTION,
        (2, 2),
        _matmul,
        _matmul_flops,
        _matmul_reference,
        optional={"accumulate": None},
        doc="[..., M, K] · [..., K, N] with broadcast batch axes; accumulate is the element type "
        "of the sums and of the result, that of the operands by default",
    ),
    OpSpec(
        "attention",
        OpClass.CONTRACTION,
        (3, 4),
        _attention,
        _attention_flops,
        _attention_reference,
        attrs=("scale",),
        optional={"causal": False},
        doc="softmax(q·kᵀ·scale + mask)·v; q [B, H, S, D], k and v [B, H/g, T, D]; mask additive "
        "or bool (true: visible), broadcast to [B, H, S, T]; causal aligns the last query with the "
        "last key; a row with nothing visible gives zeros; low precision computes in f32",
    ),
)
