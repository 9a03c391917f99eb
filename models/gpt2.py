"""A tiny GPT-2 decoder with seeded random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from models.seeded import free_batch_and_sequence, padded_tokens, with_random_vectors


def build() -> nn.Module:
    """Two layers, 32 wide, four heads, positions up to 64, tied embeddings, no KV cache."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=101,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return with_random_vectors(GPT2LMHeadModel(config))


def example_inputs(batch: int = 2, sequence: int = 7) -> dict[str, torch.Tensor]:
    """Token ids with a padding mask."""
    return padded_tokens(batch, sequence)


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """Batch and sequence are free."""
    return free_batch_and_sequence(("input_ids", "attention_mask"))
