"""A tiny GPT-2 decoder with seeded random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel


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
    module = GPT2LMHeadModel(config)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            # Biases start as zeros and scales as ones, which would hide mistakes.
            nn.init.normal_(parameter, float(parameter.mean()), 0.1)
    return module.eval()


def example_inputs(batch: int = 2, sequence: int = 7) -> dict[str, torch.Tensor]:
    """Token ids with a padding mask: the last row's second half is padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 101, (batch, sequence), generator=generator)
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    mask[-1, (sequence + 1) // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """Batch and sequence are free."""
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=64)}
    return {"input_ids": axes, "attention_mask": axes}
