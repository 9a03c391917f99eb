"""A causal decoder of SmolLM2-135M's shape, seeded random weights: what the prefill of a prompt is.

Llama, 30 layers, 576 wide, 9 heads and 3 KV heads of 64, SwiGLU 1536, tied vocabulary of 49152.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

VOCABULARY = 49152
MAX_SEQUENCE = 2048


def build(layers: int = 30) -> nn.Module:
    """From the ids of a prompt to the logits of its last position; no KV cache, no padding."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from models.seeded import with_random_vectors

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=MAX_SEQUENCE,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        attn_implementation="sdpa",
    )

    class Prefill(torch.nn.Module):
        """Only the last position's logits: the others choose no token."""

        def __init__(self, decoder: nn.Module) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.decoder(input_ids=input_ids, logits_to_keep=1).logits
            return logits

    return Prefill(with_random_vectors(LlamaForCausalLM(config))).eval()


def example_inputs(batch: int = 2, sequence: int = 16) -> dict[str, torch.Tensor]:
    """Seeded token ids."""
    import torch

    arrays = random_inputs(batch, sequence)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def random_inputs(batch: int, sequence: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Like `example_inputs`, as numpy arrays."""
    rng = np.random.default_rng(seed)
    return {"input_ids": rng.integers(0, VOCABULARY, (batch, sequence))}


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """Batch and sequence are free."""
    import torch

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=MAX_SEQUENCE)}
    return {"input_ids": axes}


def export_onnx(path: Path, *, opset: int = 20) -> Path:
    """Writes the model as ONNX with free batch and sequence, and returns `path`."""
    from models import decoder, onnx_export

    return onnx_export.export(build(), decoder, path, opset=opset, output="logits")
