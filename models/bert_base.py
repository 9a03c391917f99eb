"""BERT-base with seeded random weights: 12 layers, 768 wide, 12 heads, vocabulary 30522."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.minilm import dynamic_shapes, example_inputs, random_inputs

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LAYERS", "build", "dynamic_shapes", "example_inputs", "export_onnx", "random_inputs"]

LAYERS = 12


def build(layers: int = LAYERS) -> nn.Module:
    """The encoder without its pooling layer, in evaluation mode, of any depth."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import BertConfig, BertModel

    from models.seeded import with_random_vectors

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, attn_implementation="sdpa")
    return with_random_vectors(BertModel(config, add_pooling_layer=False))


def export_onnx(path: Path, layers: int = LAYERS, *, opset: int = 20) -> Path:
    """Writes the model as ONNX with free batch and sequence, and returns `path`."""
    from models import bert_base, onnx_export

    return onnx_export.export(
        build(layers), bert_base, path, opset=opset, output="last_hidden_state"
    )
