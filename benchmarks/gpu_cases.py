"""What `benchmarks.gpu` times: modules of torch alone, so that the machine needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Case:
    """A module and its inputs, all of one element type.

    Attributes:
        name: what it is called in files and tables.
        dtype: element type of weights, inputs and outputs.
        build: makes the module, with seeded weights.
        inputs: shape of each input.
        flops: of one call; 0 where bytes are the bound.
        moved_bytes: read and written by one call at least; 0 where arithmetic is the bound.
    """

    name: str
    dtype: torch.dtype
    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    flops: float = 0.0
    moved_bytes: float = 0.0

    def module(self) -> nn.Module:
        """The module, the same weights in every process."""
        torch.manual_seed(0)
        return self.build().to(self.dtype).eval()

    def example(self, seed: int, device: str = "cpu") -> dict[str, Tensor]:
        """Normally distributed inputs."""
        generator = torch.Generator().manual_seed(seed)
        made = {n: torch.randn(s, generator=generator) for n, s in self.inputs.items()}
        return {name: value.to(device, self.dtype) for name, value in made.items()}


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
    """One token through Llama-like layers over a filled KV cache, without rotary embedding."""

    def __init__(self, layers: int, width: int, heads: int, kv_heads: int, inner: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, depth = heads, kv_heads, width // heads
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
            mixed = functional.scaled_dot_product_attention(
                q, torch.cat([keys[i], k], 2), torch.cat([values[i], v], 2), enable_gqa=True
            )
            x = x + layer["out"](mixed.transpose(1, 2).flatten(2))
            n = layer["second"](x)
            x = x + layer["down"](functional.silu(layer["gate"](n)) * layer["up"](n))
        return x


def encoder(name: str, sizes: tuple[int, int, int, int, int], dtype: torch.dtype) -> Case:
    """Layers of BERT for (layers, batch, sequence, width, heads)."""
    layers, batch, sequence, width, heads = sizes
    flops = layers * (24.0 * batch * sequence * width**2 + 4.0 * batch * sequence**2 * width)
    return Case(
        name,
        dtype,
        lambda: nn.Sequential(*(EncoderLayer(width, heads) for _ in range(layers))),
        {"input": (batch, sequence, width)},
        flops=flops,
    )


def attention(sequence: int, depth: int, causal: bool) -> Case:
    """Attention over 16k tokens in all, 2048 wide; half of the scores where it is causal."""
    batch, heads = max(1, 16384 // sequence), 2048 // depth
    shape = (batch, heads, sequence, depth)
    kind = "causal" if causal else "full"
    flops = 4.0 * batch * heads * sequence**2 * depth / (2 if causal else 1)
    return Case(
        f"attention_{depth}_{sequence}_{kind}",
        torch.bfloat16,
        lambda: Attention(causal),
        dict.fromkeys("qkv", shape),
        flops=flops,
    )


def decode(context: int = 512) -> Case:
    """A step of about 1B weights: 16 layers, 2048 wide, 8192 inside."""
    layers, width, heads, kv_heads, inner = 16, 2048, 32, 8, 8192
    depth = width // heads
    weights = layers * (2 * width**2 + 2 * width * kv_heads * depth + 3 * width * inner)
    cache = (layers, 1, kv_heads, context, depth)
    stored = weights + 2 * layers * kv_heads * context * depth
    return Case(
        "decode_1b",
        torch.bfloat16,
        lambda: DecodeStep(layers, width, heads, kv_heads, inner),
        {"x": (1, 1, width), "keys": cache, "values": cache},
        moved_bytes=2.0 * stored,
    )


ROWS, WIDTH = 65536, 1024
"""A tensor of 128 MB in bf16: larger than any L2."""
CASES = (
    encoder("bert_large_layer", (1, 8, 512, 1024, 16), torch.bfloat16),
    encoder("bert_large", (24, 8, 512, 1024, 16), torch.bfloat16),
    encoder("bert_base_1x128", (12, 1, 128, 768, 12), torch.float16),
    *(attention(s, d, c) for d in (64, 128) for s in (2048, 16384) for c in (False, True)),
    Case(
        "add_norm",
        torch.bfloat16,
        lambda: AddNorm(WIDTH),
        {"x": (ROWS, WIDTH), "residual": (ROWS, WIDTH)},
        moved_bytes=6.0 * ROWS * WIDTH,
    ),
    Case(
        "softmax",
        torch.bfloat16,
        lambda: nn.Softmax(-1),
        {"input": (ROWS, WIDTH)},
        moved_bytes=4.0 * ROWS * WIDTH,
    ),
    Case(
        "gated",
        torch.bfloat16,
        Gated,
        {"gate": (ROWS, WIDTH), "up": (ROWS, WIDTH)},
        moved_bytes=6.0 * ROWS * WIDTH,
    ),
    decode(),
)
