"""JAX/XLA as a peer of `benchmarks.gpu`: attention and encoder layers with the same weights.

Checked against torch on a CPU, with XLA's attention instead of cuDNN's; not yet run on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from benchmarks.on_gpu.modules import Attention, EncoderLayer

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the memory is torch's, too

import jax
import jax.numpy as jnp
import torch

Weights = Mapping[str, Any]


def peer(
    module: nn.Module, inputs: Mapping[str, Tensor], attention: str | None = "cudnn"
) -> tuple[Callable[[], Any], Callable[[Any], Tensor]]:
    """A call of the module under ``jax.jit``, and what makes its result a tensor of torch.

    Attention alone gets its inputs as [batch, sequence, heads, depth], as JAX wants them.

    Args:
        module: `Attention`, or layers of an encoder.
        inputs: of one call.
        attention: implementation of ``jax.nn.dot_product_attention``; None lets XLA decide.
    """
    if isinstance(module, Attention):
        arrays = [_array(x.transpose(1, 2)) for x in inputs.values()]
        attend = jax.jit(lambda q, k, v: _attention(q, k, v, module.causal, attention))
        return lambda: attend(*arrays), lambda found: torch.from_dlpack(found).transpose(1, 2)
    assert isinstance(module, nn.Sequential)
    layers = [layer for layer in module if isinstance(layer, EncoderLayer)]
    weights = [{n: _array(w) for n, w in layer.state_dict().items()} for layer in layers]
    heads = layers[0].heads

    def encode(x: Any, weights: list[Weights]) -> Any:
        for layer in weights:
            x = _encoder_layer(x, layer, heads, attention)
        return x

    (x,) = map(_array, inputs.values())
    run = jax.jit(encode)
    return lambda: run(x, weights), torch.from_dlpack


def _array(x: Tensor) -> Any:
    return jnp.from_dlpack(x.detach().contiguous())


def _attention(q: Any, k: Any, v: Any, causal: bool, implementation: str | None) -> Any:
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation=implementation)


def _encoder_layer(x: Any, w: Weights, heads: int, implementation: str | None) -> Any:
    """The forward pass of `EncoderLayer`."""
    q, k, v = (
        _linear(x, w, name).reshape(*x.shape[:2], heads, -1) for name in ("query", "key", "value")
    )
    mixed = _attention(q, k, v, False, implementation).reshape(x.shape)
    x = _norm(x + _linear(mixed, w, "out"), w, "first")
    inner = jax.nn.gelu(_linear(x, w, "up"), approximate=False)
    return _norm(x + _linear(inner, w, "down"), w, "second")


def _linear(x: Any, w: Weights, name: str) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Any, w: Weights, name: str) -> Any:
    """Layer normalization, in float."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return (scaled * w[f"{name}.weight"] + w[f"{name}.bias"]).astype(x.dtype)
