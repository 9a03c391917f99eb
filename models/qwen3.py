"""A tiny Qwen3 decoder with seeded random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from models.seeded import free_batch_and_sequence, padded_tokens, with_random_vectors


def build() -> nn.Module:
    """Two layers, 32 wide, four query and two KV heads, their vectors normalized, no KV cache."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=101,
        hidden_size=32,
        intermediate_size=88,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return with_random_vectors(Qwen3ForCausalLM(config))


def example_inputs(batch: int = 2, sequence: int = 7) -> dict[str, torch.Tensor]:
    """Token ids with a padding mask."""
    return padded_tokens(batch, sequence)


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """Batch and sequence are free."""
    return free_batch_and_sequence(("input_ids", "attention_mask"))
