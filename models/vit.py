"""A tiny vision transformer with seeded random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from models.seeded import with_random_vectors


def build() -> nn.Module:
    """Two layers, 32 wide, four heads, 32 × 32 images cut in patches of 8 × 8."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        num_channels=3,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        attn_implementation="sdpa",
    )
    return with_random_vectors(ViTModel(config, add_pooling_layer=False))


def example_inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    """Normally distributed pixels."""
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(batch, 3, 32, 32, generator=generator)}


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """The batch is free."""
    return {"pixel_values": {0: torch.export.Dim("batch")}}
