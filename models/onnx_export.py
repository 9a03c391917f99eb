"""ONNX files of the models in this folder, as torch's exporters write them."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

TINY = ("bert", "gpt2", "llama", "qwen3", "vit")
"""The builders in this folder that `export_tiny` takes."""


def export_tiny(name: str, path: Path, *, opset: int = 20, attention: str = "sdpa") -> Path:
    """Writes the model that ``models/NAME.py`` builds, with free batch and sequence."""
    builder, module = _built(name, attention)
    return export(module, builder, path, opset=opset)


def export(
    module: Any,
    builder: Any,
    path: Path,
    *,
    opset: int = 20,
    output: str | None = None,
    external_data: bool = False,
) -> Path:
    """Writes a module of `builder`, one of the files in this folder, by torch's newer exporter.

    Inputs have the names and the free sizes that the builder gives them; `output` names the only
    output.
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision is absent
    example = builder.example_inputs()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (),
            path,
            kwargs=example,
            input_names=list(example),
            output_names=[output] if output else None,
            dynamic_shapes=builder.dynamic_shapes(),
            opset_version=opset,
            external_data=external_data,
            dynamo=True,
            verbose=False,
        )
    return path


def export_tiny_legacy(name: str, path: Path, *, opset: int = 17, attention: str = "eager") -> Path:
    """Like `export_tiny`, by torch's older exporter, which traces."""
    import torch

    builder, module = _built(name, attention)
    example = builder.example_inputs()
    names = list(example)

    class FirstOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.module(**dict(zip(names, inputs, strict=True)))[0]
            return result

    labels = ("batch", "sequence")
    axes = {
        argument: {axis: labels[axis] for axis in dims}
        for argument, dims in builder.dynamic_shapes().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            FirstOutput(),
            tuple(example.values()),
            path,
            input_names=names,
            output_names=["output"],
            dynamic_axes=axes,
            opset_version=opset,
            dynamo=False,
            verbose=False,
        )
    return path


def _built(name: str, attention: str) -> tuple[Any, Any]:
    """The builder called `name` and its module with an attention implementation."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision is absent
    builder = importlib.import_module(f"models.{name}")
    module = builder.build()
    module.set_attn_implementation(attention)
    return builder, module
