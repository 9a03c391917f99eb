"""Tiny transformers as CUDA code, emulated, against torch in float64."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from dfcompiler.api.optimizing import rewritten
from dfcompiler.importers.onnx import import_onnx
from dfcompiler.target import parse_target
from tests.cuda_emulation import EmulatedModel, emulated_model, toolkit
from tests.onnx_models import tiny_onnx
from tests.tolerances import TOLERANCES

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

MODELS = ("bert", "gpt2", "llama")
SIZES = ({"batch": 1, "sequence": 1}, {"batch": 2, "sequence": 7}, {"batch": 1, "sequence": 33})
TARGET = "cuda:sm_90"


@cache
def compiled(name: str, precision: str) -> EmulatedModel:
    program = import_onnx(tiny_onnx(name))
    result = rewritten(program, parse_target(TARGET), precision=precision)
    return emulated_model(result.program, TARGET)


@cache
def reference(name: str) -> torch.nn.Module:
    return importlib.import_module(f"models.{name}").build().double()


def differences(name: str, precision: str, sizes: dict[str, int]) -> Sequence[float]:
    """Largest difference to float64 of each output, relative to its largest value."""
    tensors: dict[str, Any] = importlib.import_module(f"models.{name}").example_inputs(**sizes)
    model = compiled(name, precision)
    found = model.run({key: tensor.numpy() for key, tensor in tensors.items()})
    with torch.no_grad():
        outputs = reference(name)(**tensors)
    values = outputs.values() if hasattr(outputs, "values") else [outputs]
    expected = [value.numpy() for value in values if isinstance(value, torch.Tensor)]
    assert len(expected) == len(found)
    return [
        float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))
        for ours, theirs in zip(found.values(), expected, strict=True)
    ]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_models_of_floats_are_as_exact_as_floats(name: str, sizes: dict[str, int]) -> None:
    assert max(differences(name, "f32", sizes)) <= TOLERANCES["float32"][1]


@pytest.mark.parametrize("precision", ["bf16", "f16"])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_16_bits(name: str, precision: str) -> None:
    tolerance = TOLERANCES[{"bf16": "bfloat16", "f16": "float16"}[precision]][1]
    assert max(differences(name, precision, SIZES[1])) <= tolerance
    kernels = compiled(name, precision).lowered.kernels
    assert any(f"gemm {precision}" in kernel.implementation for kernel in kernels)
