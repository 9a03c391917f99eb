"""A tiny vision transformer with seeded random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import ViTConfig, ViTModel


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
    module = ViTModel(config, add_pooling_layer=False)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            # Biases start as zeros and scales as ones, which would hide mistakes.
            nn.init.normal_(parameter, float(parameter.mean()), 0.1)
    return module.eval()


def example_inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    """Normally distributed pixels."""
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(batch, 3, 32, 32, generator=generator)}


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """The batch is free."""
    return {"pixel_values": {0: torch.export.Dim("batch")}}
