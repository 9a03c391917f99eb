"""What a case of `benchmarks.gpu` is, and makers of those that are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.on_gpu.modules import Attention, DecodeStep, EncoderLayer

if TYPE_CHECKING:
    from dfcompiler.ir import Program

WEIGHTS = "weights.bin"
"""The file of an artifact that may have stayed behind; see `weights.py`."""


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
        expansions: pairs of a kind of operator and what it takes, each of which gets an artifact
            besides the default one.
        peers: who takes part besides ours; see `peers.py`.
        apart: axis of the inputs whose indices have nothing to do with each other; the reference is
            computed one index at a time, because all of it in float64 would not fit into memory.
        passes: the pipeline and its options, where they are not the default ones.
    """

    name: str
    dtype: torch.dtype
    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    flops: float = 0.0
    moved_bytes: float = 0.0
    expansions: tuple[tuple[str, str], ...] = ()
    peers: tuple[str, ...] = ("eager", "compile")
    apart: int | None = None
    passes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def artifacts(self) -> dict[str, str]:
        """The folder of each artifact by the name of its contestant."""
        others = {f"ours_{name}": f"{self.name}.{name}.dfc" for _, name in self.expansions}
        return {"ours": f"{self.name}.dfc", **others}

    @property
    def onnx(self) -> str:
        """The file for ONNX Runtime."""
        return f"{self.name}.onnx"

    def module(self) -> nn.Module:
        """The module, the same weights in every process and on every machine.

        They are drawn in float64: vector units with and without fused multiply-add round the last
        bit differently, and in float32 that would be seen in the weights.
        """
        torch.manual_seed(0)
        with drawn_in(torch.float64):
            module = self.build()
        return module.to(self.dtype).eval()

    def program(self) -> Program:
        """The module as the compiler imports it."""
        from dfcompiler.api import import_model

        return import_model(self.module(), example_inputs=self.example(0))

    def example(self, seed: int, device: str = "cpu") -> dict[str, Tensor]:
        """Normally distributed inputs."""
        generator = torch.Generator().manual_seed(seed)
        made = {n: torch.randn(s, generator=generator) for n, s in self.inputs.items()}
        return {name: value.to(device, self.dtype) for name, value in made.items()}


@contextmanager
def drawn_in(dtype: torch.dtype) -> Iterator[None]:
    """Makes an element type the one of new parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
        expansions=(("matmul", "wgmma"), ("matmul", "cutlass"), ("matmul", "cublaslt")),
        peers=("eager", "compile", "onnxruntime", "jax"),
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
        expansions=(("attention", "wgmma"),),
        peers=("eager", "flash", "cudnn", "compile", "jax"),
        apart=1,
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
        lambda: DecodeStep(layers, width, heads, kv_heads, inner, context),
        {"x": (1, 1, width), "keys": cache, "values": cache},
        moved_bytes=2.0 * stored,
    )


ROWS, WIDTH = 65536, 1024
"""A tensor of 128 MB in bf16: larger than any L2."""


def memory_bound(name: str, build: Callable[[], nn.Module], *inputs: str) -> Case:
    """A kernel that reads tensors of [ROWS, WIDTH] once and writes one."""
    return Case(
        name,
        torch.bfloat16,
        build,
        dict.fromkeys(inputs, (ROWS, WIDTH)),
        moved_bytes=2.0 * (len(inputs) + 1) * ROWS * WIDTH,
        peers=("eager", "compile", "onnxruntime"),
    )
