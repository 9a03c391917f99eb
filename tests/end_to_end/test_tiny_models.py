"""Tiny random-weight transformers, from ONNX and torch: one artifact, several shapes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dfcompiler as dfc
from dfcompiler.reference.runners import torch_module
from dfcompiler.runtime import Model
from models.onnx_export import TINY, export_tiny
from tests.tolerances import TOLERANCES

SHAPES: dict[str, tuple[dict[str, int], ...]] = {
    name: ({"batch": 1, "sequence": 1}, {"batch": 3, "sequence": 7}, {"batch": 2, "sequence": 64})
    for name in TINY
}
SHAPES["vit"] = ({"batch": 1}, {"batch": 2}, {"batch": 5})


class Case:
    """A model, compiled from one source."""

    def __init__(self, name: str, source: str, folder: Path) -> None:
        self.name = name
        self.builder = importlib.import_module(f"models.{name}")
        self.module = self.builder.build()
        self.model = self.compiled(source, folder)

    def compiled(self, source: str, folder: Path) -> Model:
        if source == "onnx":
            return dfc.compile(export_tiny(self.name, folder / f"{self.name}.onnx"))
        return dfc.compile(
            self.module,
            example_inputs=self.builder.example_inputs(),
            dynamic_shapes=self.builder.dynamic_shapes(),
        )

    def inputs(self, sizes: dict[str, int]) -> dict[str, np.ndarray]:
        tensors: dict[str, Any] = self.builder.example_inputs(**sizes)
        return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.fixture(
    scope="module", params=[(n, s) for n in TINY for s in ("onnx", "torch")], ids="-".join
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("tiny"))


def test_every_shape_is_as_exact_as_torch(case: Case) -> None:
    with torch.no_grad():
        for sizes in SHAPES[case.name]:
            inputs = case.inputs(sizes)
            found = list(case.model.run(inputs).values())
            expected = list(torch_module(case.module)(inputs).values())
            assert len(found) == len(expected)
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.shape == theirs.shape
                assert np.abs(ours - theirs).max() <= TOLERANCES["float32"][1], sizes


def test_a_saved_program_of_transformers_is_verified_by_the_command(tmp_path: Path) -> None:
    """Its result is a container that torch knows only once transformers is imported."""
    builder = importlib.import_module("models.bert")
    exported = torch.export.export(
        builder.build(), (), builder.example_inputs(), dynamic_shapes=builder.dynamic_shapes()
    )
    torch.export.save(exported, tmp_path / "bert.pt2")
    done = subprocess.run(
        [sys.executable, "-m", "dfcompiler.cli", "verify", str(tmp_path / "bert.pt2")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("against torch")
