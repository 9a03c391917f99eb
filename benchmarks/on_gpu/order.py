"""Every case of `benchmarks.gpu`, in the order in which it runs them.

Which kernels are wrong comes first, then one row of each kind that must be shown, then the others.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.on_gpu.cases import WIDTH, Case, attention, decode, encoder, memory_bound
from benchmarks.on_gpu.checked_attention import attention as checked_attention
from benchmarks.on_gpu.checked_attention import wide_heads
from benchmarks.on_gpu.checked_maps import maps
from benchmarks.on_gpu.checked_products import few_rows, large_products, products
from benchmarks.on_gpu.checked_rows import rows
from benchmarks.on_gpu.checks import Check, check
from benchmarks.on_gpu.generation import GENERATION
from benchmarks.on_gpu.modules import AddNorm, Gated


def checks_of(dtype: torch.dtype) -> tuple[Check, ...]:
    """Every family of kernels in an element type, with what it can take besides the default."""
    is_half = dtype is not torch.float32
    names = ("wgmma", "cutlass", "cublaslt") if is_half else ("tf32", "cublaslt")
    by_product = tuple(("matmul", name) for name in names)
    by_attention = (("attention", "wgmma"),) if is_half else ()
    return (
        check("products", dtype, products(), by_product),
        check("large_products", dtype, large_products(), by_product),
        check("few_rows", dtype, few_rows() | wide_heads()),
        check("attention", dtype, checked_attention(), by_attention),
        check("rows", dtype, rows()),
        check("maps", dtype, maps()),
    )


def attentions(*sequences: int) -> tuple[Case, ...]:
    """Both widths of heads, full and causal."""
    return tuple(
        attention(sequence, depth, causal)
        for sequence in sequences
        for depth in (64, 128)
        for causal in (False, True)
    )


CHECKS = (
    *checks_of(torch.bfloat16),
    *checks_of(torch.float16),
    *checks_of(torch.float32),
    GENERATION,
)
TIMED = (
    encoder("bert_large_layer", (1, 8, 512, 1024, 16), torch.bfloat16),
    encoder("bert_base_1x128", (12, 1, 128, 768, 12), torch.float16),
    decode(),
    memory_bound("add_norm", lambda: AddNorm(WIDTH), "x", "residual"),
    memory_bound("softmax", lambda: nn.Softmax(-1), "input"),
    memory_bound("gated", Gated, "gate", "up"),
    *attentions(2048, 16384),
    encoder("bert_large", (24, 8, 512, 1024, 16), torch.bfloat16),
    *attentions(4096, 8192),
)
CASES: tuple[Case, ...] = (*CHECKS, *TIMED)
