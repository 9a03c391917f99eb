"""One step of a decoder of Hugging Face's `transformers` with its static KV cache in buffers."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel, StaticCache


class CachedStep(nn.Module):
    """Appends tokens to the cache and gives the logits of the next one.

    Buffers of each layer: ``key_cache_0``, ``value_cache_0`` of the whole context, and
    ``cumulative_length_0``, the number of tokens in them.
    """

    def __init__(self, decoder: PreTrainedModel, context: int) -> None:
        super().__init__()
        self.decoder, self.context = decoder.requires_grad_(False), context
        config = decoder.config
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        width = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
        cache = StaticCache(config=config, max_cache_len=context)
        cache.early_initialization(1, heads, width, torch.float32, torch.device("cpu"))
        for i, layer in enumerate(cache.layers):
            self.register_buffer(f"key_cache_{i}", layer.keys)
            self.register_buffer(f"value_cache_{i}", layer.values)
            self.register_buffer(f"cumulative_length_{i}", layer.cumulative_length)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        cache = StaticCache(config=self.decoder.config, max_cache_len=self.context)
        for i, layer in enumerate(cache.layers):
            layer.keys = self.get_buffer(f"key_cache_{i}")
            layer.values = self.get_buffer(f"value_cache_{i}")
            layer.cumulative_length = self.get_buffer(f"cumulative_length_{i}")
            layer.dtype, layer.device = layer.keys.dtype, layer.keys.device
            layer.is_initialized = True
        found = self.decoder(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return {"logits": found.logits[:, -1]}


def example_inputs(sequence: int = 5) -> dict[str, torch.Tensor]:
    """A prompt of arbitrary tokens."""
    return {"ids": torch.arange(4, 4 + sequence).reshape(1, sequence)}


def dynamic_shapes(context: int) -> dict[str, dict[int, object]]:
    """The prompt's length is free up to the context."""
    return {"ids": {1: torch.export.Dim("S", max=context)}}
