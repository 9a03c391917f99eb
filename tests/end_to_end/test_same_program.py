"""A model imported from ONNX and from torch becomes the same program."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from dfcompiler.importers.onnx import import_onnx
from dfcompiler.importers.torch_export import import_module
from dfcompiler.ir import Program
from dfcompiler.pipeline import assemble
from models import minilm
from passes.pipelines import DEFAULT
from tests.normal_form import normal_form
from tests.onnx_models import tiny_onnx

# Up to here passes recover what is meant; what follows decides how it runs.
STEPS = DEFAULT[: DEFAULT.index("fuse-epilogue")]


def canonical(program: Program) -> str:
    return normal_form(assemble(STEPS).run(program).program)


def from_torch(name: str) -> str:
    source = importlib.import_module(f"models.{name}")
    program = import_module(source.build(), source.example_inputs(), source.dynamic_shapes())
    return canonical(program)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3", "vit"])
def test_tiny_models(name: str) -> None:
    assert canonical(import_onnx(tiny_onnx(name))) == from_torch(name)


def test_minilm(tmp_path: Path) -> None:
    path = minilm.export_onnx(tmp_path / "minilm.onnx")
    found = canonical(import_onnx(path))
    assert found == from_torch("minilm")
    assert found.count("= attention ") == 6
    assert found.count("= layer_norm ") == 13
    assert found.count("= gelu ") == 6
    assert "where" not in found
