"""What the tiny models with seeded random weights have in common."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def with_random_vectors(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, its biases and scales drawn at random.

    Biases start as zeros and scales as ones, which would hide mistakes.
    """
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, float(parameter.detach().mean()), 0.1)
    return module.eval()


def padded_tokens(batch: int, sequence: int) -> dict[str, torch.Tensor]:
    """Token ids with a padding mask: the last row's second half is padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 101, (batch, sequence), generator=generator)
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    mask[-1, (sequence + 1) // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def free_batch_and_sequence(inputs: Iterable[str]) -> dict[str, dict[int, object]]:
    """Both axes of every input are free, up to 64 tokens."""
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=64)}
    return dict.fromkeys(inputs, axes)
