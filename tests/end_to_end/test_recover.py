"""Real exports of the tiny models: every block is recovered, and nothing changes in value."""

from __future__ import annotations

import importlib
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from dfcompiler.importers.onnx import import_onnx
from dfcompiler.importers.torch_export import import_exported
from dfcompiler.ir import DType, Program, interpret
from dfcompiler.pipeline import assemble
from models import minilm_int8
from passes.pipelines import DEFAULT
from tests.onnx_models import tiny_onnx
from tests.tolerances import assert_close

LAYERS = 2
BLOCKS = {
    "bert": {"attention": LAYERS, "layer_norm": 2 * LAYERS + 1, "gelu": LAYERS},
    "gpt2": {"attention": LAYERS, "layer_norm": 2 * LAYERS + 1, "gelu": LAYERS},
    "vit": {"attention": LAYERS, "layer_norm": 2 * LAYERS + 1, "gelu": LAYERS},
    "llama": {
        "attention": LAYERS,
        "rms_norm": 2 * LAYERS + 1,
        "silu": LAYERS,
        "rotary": 2 * LAYERS,
    },
    # Queries and keys are normalized too.
    "qwen3": {
        "attention": LAYERS,
        "rms_norm": 4 * LAYERS + 1,
        "silu": LAYERS,
        "rotary": 2 * LAYERS,
    },
}
STEPS = [n for n in DEFAULT if n.startswith(("canonicalize", "fold", "eliminate", "recover"))]
RECOVERED = sorted({kind for blocks in BLOCKS.values() for kind in blocks})
PARTS = ("softmax", "isnan", "erf", "tanh", "sigmoid", "exp", "pow", "sqrt", "rsqrt", "reduce_mean")


@cache
def exported(name: str, implementation: str) -> torch.export.ExportedProgram:
    builder = importlib.import_module(f"models.{name}")
    module = builder.build()
    module.set_attn_implementation(implementation)
    with torch.no_grad():
        return torch.export.export(
            module, (), builder.example_inputs(), dynamic_shapes=builder.dynamic_shapes()
        )


def imported(name: str, source: str) -> Program:
    match source:
        case "onnx":
            return import_onnx(tiny_onnx(name))
        case "torch":
            return import_exported(exported(name, "sdpa"), name)
        case "torch, decomposed":
            return import_exported(exported(name, "sdpa").run_decompositions(), name)
    return import_exported(exported(name, "eager"), name)


EXPORTS = [(name, source) for name in BLOCKS for source in ("onnx", "torch")] + [
    ("bert", "torch, decomposed"),
    ("llama", "torch, decomposed"),
    ("gpt2", "torch, eager"),
    ("qwen3", "torch, eager"),
]


@pytest.mark.parametrize(("name", "source"), EXPORTS)
def test_every_block_is_recovered(name: str, source: str) -> None:
    program = imported(name, source)
    recovered = assemble(STEPS).run(program).program
    kinds = Counter(op.kind for op in recovered.ops())
    assert {kind: kinds[kind] for kind in RECOVERED if kinds[kind]} == BLOCKS[name]
    assert not [kind for kind in PARTS if kinds[kind]]
    inputs = {key: np.asarray(t) for key, t in example_inputs(name).items()}
    expected, actual = interpret(program, inputs), interpret(recovered, inputs)
    for output, array in expected.items():
        assert_close(actual[output], array, output)


def example_inputs(name: str) -> dict[str, torch.Tensor]:
    inputs: dict[str, torch.Tensor] = importlib.import_module(f"models.{name}").example_inputs()
    return inputs


def test_weights_of_the_int8_encoder_stay_codes() -> None:
    program = import_onnx(minilm_int8.path())
    recovered = assemble(STEPS).run(program).program
    kinds = Counter(op.kind for op in recovered.ops())
    blocks = {"attention": 6, "layer_norm": 13, "gelu": 6}
    assert {kind: kinds[kind] for kind in RECOVERED if kinds[kind]} == blocks
    codes = [c.name for c in recovered.weights if c.type.dtype is DType.I8]
    readers = [op for op in recovered.ops() if any(name[1:] in codes for name in op.inputs)]
    assert len(codes) == 38
    assert {op.kind for op in readers} <= {"dequantize", "gather"}
    rng = np.random.default_rng(0)
    inputs = {c.name: rng.integers(0, 2, (2, 7)) for c in program.inputs}
    inputs["attention_mask"] = np.array([[1] * 7, [1] * 4 + [0] * 3])
    expected, actual = interpret(program, inputs), interpret(recovered, inputs)
    for output, array in expected.items():
        assert_close(actual[output], array, output)
