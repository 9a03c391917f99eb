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
from dfcompiler.ir import parse
from dfcompiler.target import parse_target
from tests.cuda_emulation import EmulatedModel, emulated_model, toolkit
from tests.onnx_models import tiny_onnx
from tests.programs import with_random_weights
from tests.tolerances import TOLERANCES

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

MODELS = ("bert", "gpt2", "llama")
SIZES = ({"batch": 1, "sequence": 1}, {"batch": 2, "sequence": 7}, {"batch": 1, "sequence": 33})
TARGET = "cuda:sm_90"
LARGE = """
program large(S) {
  input  @x: f32[S, 32]
  weight @w: f32[32, 64]
  weight @b: f32[64]
  weight @v: f32[64, 32]
  output @y: f32[S, 32]
  state main {
    %0: f32[S, 64] = matmul @x, @w
    %1: f32[S, 64] = add %0, @b
    %2: f32[S, 64] = tanh %1
    %3: f32[S, 32] = matmul %2, @v
    @y: f32[S, 32] = add %3, @x
  }
}
"""


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


def test_a_weight_beyond_f16_is_as_exact_as_the_others() -> None:
    w = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32) / 6
    w[3, 5], w[0, 0] = 1e6, -7e4
    program = with_random_weights(parse(LARGE), {"w": w})
    result = rewritten(program, parse_target(TARGET), precision="f16")
    reasons = [str(declined) for step in result.steps for declined in step.declined]
    assert any("@w holds 1e+06, and f16 ends at 65504" in reason for reason in reasons)
    x = np.random.default_rng(1).standard_normal((37, 32)).astype(np.float32)
    found = emulated_model(result.program, TARGET).run({"x": x})["y"]
    data = {name: array.astype(np.float64) for name, array in program.data.items()}
    expected = np.tanh(x @ data["w"] + data["b"]) @ data["v"] + x
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error <= TOLERANCES["float16"][1]
