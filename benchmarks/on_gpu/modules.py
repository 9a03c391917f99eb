"""The modules of the cases: of torch alone, so that the machine needs nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class EncoderLayer(nn.Module):
    """BERT's layer: attention, then two products, each with a residual and a normalization."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        x = self.first(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.second(x + self.down(functional.gelu(self.up(x))))


class Attention(nn.Module):
    """Attention alone."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class AddNorm(nn.Module):
    """Layer normalization of a sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.norm(x + residual)


class Gated(nn.Module):
    """SiLU of one tensor times another: an element-wise chain."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        return functional.silu(gate) * up


class DecodeStep(nn.Module):
    """One token through Llama's layers: grouped queries over a filled KV cache, rotary embedding.

    Args:
        layers: how many.
        width: of the hidden state.
        heads: of the queries.
        kv_heads: of keys and values.
        inner: width inside the gated MLP.
        context: tokens in the cache; the new one's position.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self, layers: int, width: int, heads: int, kv_heads: int, inner: int, context: int
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, depth = heads, kv_heads, width // heads
        cos, sin = rotary_tables(context, depth)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        sizes = {
            "q": width,
            "k": kv_heads * depth,
            "v": kv_heads * depth,
            "gate": inner,
            "up": inner,
        }
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    **{name: nn.Linear(width, size, bias=False) for name, size in sizes.items()},
                    "out": nn.Linear(width, width, bias=False),
                    "down": nn.Linear(inner, width, bias=False),
                    "first": nn.RMSNorm(width, eps=1e-5),
                    "second": nn.RMSNorm(width, eps=1e-5),
                }
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            n = layer["first"](x)
            q = layer["q"](n).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            k, v = (layer[f](n).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for f in "kv")
            q, k = (rotated(t, self.cos, self.sin) for t in (q, k))
            mixed = functional.scaled_dot_product_attention(
                q, torch.cat([keys[i], k], 2), torch.cat([values[i], v], 2), enable_gqa=True
            )
            x = x + layer["out"](mixed.transpose(1, 2).flatten(2))
            n = layer["second"](x)
            x = x + layer["down"](functional.silu(layer["gate"](n)) * layer["up"](n))
        return x


def rotary_tables(position: int, depth: int, base: float = 5e5) -> tuple[Tensor, Tensor]:
    """Cosines and sines of a position, each frequency twice: two tensors of [depth].

    Computed in float64, so that machines with other vector units agree after rounding.
    """
    frequencies = base ** (-torch.arange(0, depth, 2, dtype=torch.float64) / depth)
    angles = (position * frequencies).repeat(2)
    return angles.cos().float(), angles.sin().float()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves of the last axis turned against each other."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
