"""ONNX files of the tiny random-weight models, as torch's exporters write them."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from pathlib import Path

TINY = ("bert", "gpt2", "llama", "qwen3", "vit")
"""The builders in this folder that `export_tiny` takes."""


def export_tiny(name: str, path: Path, *, opset: int = 20) -> Path:
    """Writes the model that ``models/NAME.py`` builds, with free batch and sequence."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision is absent
    builder = importlib.import_module(f"models.{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            builder.build(),
            (),
            path,
            kwargs=builder.example_inputs(),
            dynamic_shapes=builder.dynamic_shapes(),
            opset_version=opset,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    return path
