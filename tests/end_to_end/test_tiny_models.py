"""Tiny random-weight transformers, from ONNX and torch: one artifact, several shapes."""

from __future__ import annotations

import importlib
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
