"""Attention that `benchmarks.gpu` checks.

Most have a tile for at least half of the 132 multiprocessors, as the kernel by wgmma wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.on_gpu.checks import Index, Part, applied

attend = functional.scaled_dot_product_attention


def behind(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rows are the last positions of the keys: causal with an offset."""
    rows, keys = q.shape[2], k.shape[2]
    visible = (
        torch.arange(keys, device=q.device)
        <= torch.arange(keys - rows, keys, device=q.device)[:, None]
    )
    return attend(q, k, v, attn_mask=visible)


def padded(q: Tensor, k: Tensor, v: Tensor, last: Tensor) -> Tensor:
    """Keys up to `last` of each element of the batch are seen."""
    visible = torch.arange(k.shape[2], device=q.device) <= last[:, None]
    return attend(q, k, v, attn_mask=visible[:, None, None, :])


def masked(q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    """A mask of truth values without any order."""
    return attend(q, k, v, attn_mask=scores > 0)


def biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """A mask of numbers."""
    return attend(q, k, v, attn_mask=bias)


def of_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads as slices of rows, as products leave them; the result is rows again."""
    heads = (t.unflatten(-1, (-1, 64)).transpose(1, 2) for t in (q, k, v))
    return attend(*heads).transpose(1, 2).flatten(2)


def over(
    shape: tuple[int, int, int, int],
    keys: int | None = None,
    kv_heads: int | None = None,
    *rest: tuple[int, ...] | Index,
    function: Callable[..., Tensor] = attend,
) -> Part:
    """Attention of queries of a shape; keys and their heads are as many where nothing is said."""
    batch, heads, rows, depth = shape
    other = (batch, kv_heads or heads, keys or rows, depth)
    return applied(function, shape, other, other, *rest)


def attention() -> dict[str, Part]:
    """Each mask, grouped queries, widths that are padded, few rows over many keys."""
    causal, grouped = partial(attend, is_causal=True), partial(attend, enable_gqa=True)
    return {
        "full_64": over((3, 12, 300, 64)),
        "full_128": over((3, 12, 257, 128)),
        "full_32": over((3, 12, 300, 32)),
        "full_80": over((3, 12, 257, 80)),
        "causal_64": over((1, 16, 2048, 64), function=causal),
        "causal_128": over((2, 10, 1024, 128), function=causal),
        "causal_tails": over((3, 12, 300, 64), function=causal),
        "behind_64": over((3, 12, 200, 64), 333, function=behind),
        "behind_128": over((3, 12, 130, 128), 300, function=behind),
        "padding_64": over((3, 12, 300, 64), None, None, Index((3,), 300), function=padded),
        "padding_128": over((3, 12, 257, 128), None, None, Index((3,), 257), function=padded),
        "mask_64": over((3, 12, 300, 64), None, None, (3, 1, 300, 300), function=masked),
        "mask_of_heads": over((3, 12, 257, 128), None, None, (1, 12, 257, 257), function=masked),
        "bias_64": over((3, 12, 300, 64), None, None, (1, 12, 300, 300), function=biased),
        "grouped_64": over((2, 32, 256, 64), None, 8, function=grouped),
        "grouped_128": over((2, 32, 256, 128), None, 4, function=partial(grouped, is_causal=True)),
        "one_row": over((1, 32, 1, 64), 5000, 8, function=grouped),
        "one_row_128": over((2, 8, 1, 128), 4097),
        "one_row_padded": over((3, 8, 1, 64), 1500, None, Index((3,), 1500), function=padded),
        "few_rows": over((1, 32, 5, 128), 3000, 8, function=grouped),
        "few_tiles": over((1, 2, 70, 64), 700),
        "of_rows": applied(of_rows, *(((3, 300, 768),) * 3)),
    }


def wide_heads() -> dict[str, Part]:
    """Heads that only the kernel with a warp for each row has."""
    return {"attention_160": over((1, 3, 40, 160), 50)}
