"""A tiny BERT encoder with seeded random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, BertModel

from models.seeded import free_batch_and_sequence, padded_tokens, with_random_vectors


def build() -> nn.Module:
    """Two layers, 32 wide, four heads, positions up to 64."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=101,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    return with_random_vectors(BertModel(config, add_pooling_layer=False))


def example_inputs(batch: int = 2, sequence: int = 7) -> dict[str, torch.Tensor]:
    """Token ids with a padding mask, all of segment 0."""
    tokens = padded_tokens(batch, sequence)
    return {**tokens, "token_type_ids": torch.zeros_like(tokens["input_ids"])}


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """Batch and sequence are free."""
    return free_batch_and_sequence(("input_ids", "attention_mask", "token_type_ids"))
