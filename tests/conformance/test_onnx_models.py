"""Exported models give what ONNX Runtime gives, for several shapes from one import."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dfcompiler.errors import InputError
from dfcompiler.importers.onnx import import_onnx
from dfcompiler.ir import Program, interpret
from models import minilm, minilm_int8, qwen3
from models.onnx_export import export_tiny_legacy
from tests.onnx_models import tiny_onnx

TOLERANCE = 1e-5
TEXT_SHAPES = ((1, 1), (2, 9), (3, 33))
Arrays = dict[str, np.ndarray]


def require_equal(
    path: Path,
    program: Program,
    inputs: Callable[..., Arrays],
    shapes: tuple[tuple[int, ...], ...],
) -> None:
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    for shape in shapes:
        arrays = inputs(*shape)
        found = interpret(program, arrays)
        assert list(found) == names
        for name, expected in zip(names, session.run(None, arrays), strict=True):
            assert found[name].shape == expected.shape
            assert np.max(np.abs(found[name] - expected)) <= TOLERANCE


def builder_inputs(name: str) -> Callable[..., Arrays]:
    builder = importlib.import_module(f"models.{name}")
    return lambda *shape: {n: t.numpy() for n, t in builder.example_inputs(*shape).items()}


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3"])
def test_tiny_text_models(name: str) -> None:
    path = tiny_onnx(name)
    program = import_onnx(path)
    assert [s.name for s in program.symbols] == ["batch", "sequence"]
    require_equal(path, program, builder_inputs(name), TEXT_SHAPES)


def test_tiny_vision_transformer() -> None:
    path = tiny_onnx("vit")
    program = import_onnx(path)
    assert [s.name for s in program.symbols] == ["batch"]
    require_equal(path, program, builder_inputs("vit"), ((1,), (3,), (8,)))


def test_weight_only_int8_minilm() -> None:
    path = minilm_int8.path()
    program = import_onnx(path)
    require_equal(path, program, minilm.random_inputs, ((1, 1), (2, 16), (1, 77)))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_sequence_longer_than_the_position_table_is_refused(name: str) -> None:
    program = import_onnx(tiny_onnx(name))
    assert {s.name: s.maximum for s in program.symbols} == {"batch": None, "sequence": 64}
    with pytest.raises(InputError, match="sequence = 65; the model takes 64 at most"):
        interpret(program, builder_inputs(name)(1, 65))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3", "vit"])
def test_shape_arithmetic_leaves_no_operator(name: str) -> None:
    program = import_onnx(tiny_onnx(name))
    sources = {op.kind for op in program.ops()}
    assert not sources & {"dim", "take_along", "reduce_prod"}
    integers = [op for op in program.ops() if op.type.dtype.is_integer]
    assert {op.kind for op in integers} <= {"iota", "reshape"}


@pytest.mark.parametrize(
    ("name", "opset", "attention"),
    [("bert", 13, "eager"), ("gpt2", 17, "sdpa"), ("llama", 13, "eager"), ("vit", 17, "sdpa")],
)
def test_exports_of_the_older_exporter(
    name: str, opset: int, attention: str, tmp_path: Path
) -> None:
    path = export_tiny_legacy(name, tmp_path / "model.onnx", opset=opset, attention=attention)
    shapes = ((1,), (3,)) if name == "vit" else TEXT_SHAPES
    require_equal(path, import_onnx(path), builder_inputs(name), shapes)


def test_an_export_with_whole_operators() -> None:
    """Operator set 23 has RMSNormalization and RotaryEmbedding.

    torch is the reference: ONNX Runtime refuses this RotaryEmbedding, whose tables have batch 1.
    """
    program = import_onnx(tiny_onnx("qwen3", opset=23))
    assert {op.kind for op in program.ops()} >= {"rms_norm", "rotary"}
    module = qwen3.build()
    for shape in TEXT_SHAPES:
        arrays = builder_inputs("qwen3")(*shape)
        with torch.no_grad():
            expected = module(**{n: torch.from_numpy(a) for n, a in arrays.items()})[0].numpy()
        (found,) = interpret(program, arrays).values()
        assert np.max(np.abs(found - expected)) <= TOLERANCE
