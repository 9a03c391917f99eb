"""Recover scaled dot-product attention from products and softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.analysis.attention_mask import MaskBuilder
from dfcompiler.analysis.heads import batch_and_heads, keys_of, repeated, unscaled, view
from dfcompiler.analysis.scores import Mask, masks_of, weights_of
from dfcompiler.ir import Attr, Attrs, Dim, DType, Op, Program
from dfcompiler.ir.dims import equal
from dfcompiler.ir.draft import Draft, draft_states
from dfcompiler.ir.match import MismatchError
from dfcompiler.ir.rewrite import StateRewriter
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverAttention(Pass):
    """Recovers ``softmax(q·kᵀ·scale + mask)·v``.

    ::

        %kt = transpose @k {perm = [0, 1, 3, 2]}
        %s  = matmul @q, %kt
        %t  = mul %s, 0.125                        ──▶    %y = attention @q, @k, @v, @mask
        %u  = add %t, @mask                                      {scale = 0.125}
        %w  = softmax %u {axis = -1}
        %y  = matmul %w, @v

    * The scale may be multiplied or divided, in the scores, in q, in k, or in both. What is
      1/√width up to the rounding of such parts becomes just that.
    * Masks may be added, or choose between scores and a fill. A fill of minus infinity becomes a
      bool mask, a comparison of positions that is causal by proof becomes ``causal``, what
      provably hides nothing goes, and expansions go.
    * Guards that set rows without a visible key to zero go: `attention` does so itself.
    * Batch and heads may be merged in one axis, kᵀ may be any transpose, and key and value heads
      that were repeated for groups of queries are read unrepeated; so are those of a cache, unless
      it is written in between.
    * Casts of the scores to a higher precision and back go: `attention` computes them in f32.
    * An `attention` that the model has as an operator is simplified in the same ways.

    Without a guard a row with no visible key is NaN in the source and zero here
    (docs/decisions/0006). A finite fill gives such a row the mean of all values; it stays an added
    mask, so that this is kept.

    Skips scores or weights that are read elsewhere, keys that are stored transposed, masks set
    after scaling, and fills that would need a proof that every query sees a key.
    """

    name: ClassVar[str] = "recover-attention"
    claims: ClassVar[tuple[str, ...]] = ("flops <=", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        return draft_states(program, _recover, decline)


def _recover(draft: Draft, op: Op) -> None:
    match op.kind:
        case "attention":
            _rewrite(draft, op, _operator(draft.state, op))
        case "matmul":
            site = _products(draft.state, op)
            if site is not None:
                _rewrite(draft, op, site)


@dataclass(frozen=True)
class _Site:
    """``softmax(scale · q·kᵀ + masks)·v`` with leading axes of q, k and v perhaps merged.

    `swapped` is the transpose that makes `keys` [.., tokens, width]; none if it is that already.
    """

    q: str
    keys: str
    swapped: tuple[int, ...]
    v: str
    scores: tuple[Dim, Dim, Dim, Dim]
    scale: float
    masks: tuple[Mask, ...]
    source: str
    causal: bool = False


def _products(state: StateRewriter, last: Op) -> _Site | None:
    """Attention as two products around a softmax."""
    weights = weights_of(state, last.inputs[0])
    if weights is None:
        return None
    left, right = weights.product.inputs
    keys, factor, swapped = keys_of(state, right)
    batch, heads = batch_and_heads(state, (*weights.chain, left, right))
    rows, columns = weights.product.type.shape[-2:]
    return _Site(
        q=left,
        keys=keys,
        swapped=swapped,
        v=last.inputs[1],
        scores=(batch, heads, rows, columns),
        scale=weights.scale * factor,
        masks=tuple(weights.masks),
        source=last.source or weights.softmax.source,
    )


def _operator(state: StateRewriter, op: Op) -> _Site:
    """Attention as an operator of the model, which may still be told more about its mask."""
    q, k, v, *mask = op.inputs
    batch, heads, rows, _ = state.type_of(q).shape
    return _Site(
        q=q,
        keys=k,
        swapped=(),
        v=v,
        scores=(batch, heads, rows, state.type_of(k).shape[2]),
        scale=op.attr("scale"),
        masks=tuple(masks_of(state, mask[0], 4)) if mask else (),
        source=op.source,
        causal=op.attr("causal", False),
    )


def _rewrite(draft: Draft, last: Op, site: _Site) -> None:
    batch, heads, rows, columns = site.scores
    width = draft.state.type_of(site.q).shape[-1]
    q, q_factor = unscaled(draft, site.q)
    q = view(draft, q, (batch, heads, rows, width))
    k, v, kv_heads = site.keys, site.v, heads
    few_k, few_v = (repeated(draft.state, name, heads) for name in (k, v))
    if few_k and few_v and not site.swapped and equal(few_k[1], few_v[1]):
        (k, kv_heads), (v, _) = few_k, few_v
    k, k_factor = unscaled(draft, k)
    if site.swapped:
        k = view(draft, k, draft.state.type_of(site.keys).shape)
        k = draft.op("transpose", [k], {"perm": site.swapped})
    k = view(draft, k, (batch, kv_heads, columns, width))
    v = view(draft, v, (batch, kv_heads, columns, last.type.shape[-1]))
    builder = MaskBuilder(draft, site.scores, draft.type_of(q).dtype, site.causal)
    mask = builder.mask(site.masks)
    _check_dtypes([draft.type_of(name).dtype for name in (q, k, v, mask) if name])
    attrs: dict[str, Attr] = {"scale": _exact(site.scale * q_factor * k_factor, width)}
    if builder.causal:
        attrs["causal"] = True
    inputs = (q, k, v, mask) if mask else (q, k, v)
    if last.kind == "attention" and inputs == last.inputs and Attrs(attrs) == last.attrs:
        draft.discard()
        return
    result = draft.op("attention", inputs, attrs, source=site.source)
    if not equal(draft.type_of(result).elements, last.type.elements):
        raise MismatchError("a mask broadcasts the scores to another shape")
    draft.reshape(result, last.type.shape)
    if not draft.commit(last):
        raise MismatchError("it reads a container that the program writes")


def _exact(scale: float, width: Dim) -> float:
    """1/√width for a scale that is that up to rounding.

    Exports spread the scale over queries and keys as two roots, each rounded to f32.
    """
    if not isinstance(width, int):
        return scale
    exact = 1 / math.sqrt(width)
    return exact if abs(scale / exact - 1) < 2**-22 else scale


def _check_dtypes(dtypes: list[DType]) -> None:
    named = {dtype.value for dtype in dtypes[:3]} | {d.value for d in dtypes[3:] if d.is_float}
    if len(named) > 1:
        raise MismatchError(f"queries, keys, values and mask have types {', '.join(sorted(named))}")
