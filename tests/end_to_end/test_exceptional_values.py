"""Not-a-number and infinity in activations, and rows that a mask hides whole: as torch has them."""

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
from models.onnx_export import export
from tests.tolerances import assert_close

SPOILED = {5: np.nan, 6: np.inf, 7: -np.inf}
"""Rows of the embedding table that hold one such value among ordinary ones."""

SEQUENCES = (7, 40)
MODELS = ("bert", "llama")


class Case:
    """A tiny model, compiled from one source, with spoiled rows in its embedding table."""

    def __init__(self, name: str, source: str, folder: Path) -> None:
        builder = importlib.import_module(f"models.{name}")
        self.module = builder.build()
        table = self.module.get_input_embeddings().weight
        with torch.no_grad():
            for row, value in SPOILED.items():
                table[row, row] = value
        self.names = list(builder.example_inputs())
        self.model = self.compiled(builder, source, folder / f"{name}.onnx")

    def compiled(self, builder: Any, source: str, path: Path) -> Model:
        if source == "onnx":
            return dfc.compile(export(self.module, builder, path))
        return dfc.compile(
            self.module,
            example_inputs=builder.example_inputs(),
            dynamic_shapes=builder.dynamic_shapes(),
        )

    def check(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The first output, which is the same as torch's."""
        every = {
            "input_ids": ids,
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros_like(ids),
        }
        inputs = {name: every[name] for name in self.names}
        found = next(iter(self.model.run(inputs).values()))
        expected = next(iter(torch_module(self.module)(inputs).values()))
        assert_close(found, expected)
        return found


@pytest.fixture(
    scope="module", params=[(n, s) for n in MODELS for s in ("onnx", "torch")], ids="-".join
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("spoiled"))


def tokens(sequence: int) -> tuple[np.ndarray, np.ndarray]:
    """Three rows of ordinary ids, nothing hidden."""
    ids = np.random.default_rng(0).integers(10, 101, (3, sequence))
    return ids, np.ones_like(ids)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("spoiled", SPOILED)
def test_spoiled_activations(case: Case, spoiled: int, sequence: int) -> None:
    """They spoil what depends on them, other rows of the batch nothing."""
    ids, mask = tokens(sequence)
    ids[1, 3] = spoiled
    found = case.check(ids, mask)
    assert np.isnan(found[1, 3:]).all()
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_sequence_of_padding_only(case: Case, sequence: int) -> None:
    ids, mask = tokens(sequence)
    mask[1] = 0
    assert np.isfinite(case.check(ids, mask)).all()


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_padding_on_the_left(case: Case, sequence: int) -> None:
    """The first positions of a causal decoder then see nothing at all."""
    ids, mask = tokens(sequence)
    mask[1, : sequence // 2] = 0
    assert np.isfinite(case.check(ids, mask)).all()
