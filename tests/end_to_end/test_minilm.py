"""all-MiniLM-L6-v2 with its trained weights: one artifact, many shapes, ONNX and torch alike."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dfcompiler as dfc
from dfcompiler.api import Options, compile_artifact
from dfcompiler.errors import InputError
from dfcompiler.reference.runners import onnxruntime
from dfcompiler.runtime import Model
from models import minilm, minilm_int8
from tests.tolerances import TOLERANCES

SHAPES = ((1, 1), (1, 16), (3, 77), (8, 128), (1, 512))
SENTENCES = ["A man is eating food.", "Somebody is having a meal.", "The compiler is fast."]


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return minilm.build()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm.export_onnx(tmp_path_factory.mktemp("minilm") / "minilm.onnx")


@pytest.fixture(scope="module")
def from_onnx(onnx_file: Path) -> Model:
    return dfc.compile(onnx_file, out=onnx_file.parent / "onnx.dfc")


@pytest.fixture(scope="module")
def from_torch(module: nn.Module, onnx_file: Path) -> Model:
    return dfc.compile(
        module,
        out=onnx_file.parent / "torch.dfc",
        example_inputs=minilm.example_inputs(),
        dynamic_shapes=minilm.dynamic_shapes(),
    )


def torch_hidden(module: nn.Module, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        found = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return found.last_hidden_state.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("source", ["from_onnx", "from_torch"])
def test_every_shape_of_one_artifact_is_as_exact_as_torch(
    source: str, shape: tuple[int, int], module: nn.Module, request: pytest.FixtureRequest
) -> None:
    model: Model = request.getfixturevalue(source)
    inputs = minilm.random_inputs(*shape)
    hidden = model.run(inputs)["last_hidden_state"]
    expected = torch_hidden(module, inputs)
    assert hidden.shape == expected.shape
    assert np.abs(hidden - expected).max() <= TOLERANCES["float32"][1]


def test_calls_of_changing_size_do_not_disturb_each_other(
    from_onnx: Model, module: nn.Module
) -> None:
    first, large = minilm.random_inputs(2, 5), minilm.random_inputs(4, 130, seed=1)
    before = from_onnx.run(first)["last_hidden_state"]
    from_onnx.run(large)
    after = from_onnx.run(first)["last_hidden_state"]
    np.testing.assert_array_equal(before, after)


def test_no_contraction_uses_a_pure_expansion(from_onnx: Model, from_torch: Model) -> None:
    for model in (from_onnx, from_torch):
        kernels = model.manifest["kernels"]
        contractions = [k for k in kernels if "gemm" in k["implementation"]]
        # Layers are rolled; of one layer: query, key and value in one, and three more.
        assert len(contractions) == 4
        assert Counter(k["op"] for k in kernels)["attention"] == 1
        assert not [k for k in kernels if "pure" in k["implementation"]]


def test_external_data_gives_the_same_artifact(
    from_onnx: Model, module: nn.Module, tmp_path: Path
) -> None:
    path = minilm.export_onnx(tmp_path / "apart.onnx", external_data=True)
    assert path.stat().st_size < 1 << 20
    model = dfc.compile(path)
    inputs = minilm.random_inputs(2, 9)
    for name, array in from_onnx.run(inputs).items():
        np.testing.assert_array_equal(model.run(inputs)[name], array)


def test_two_compiles_are_the_same_to_the_byte(
    onnx_file: Path, from_onnx: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path))
    again = compile_artifact(onnx_file, onnx_file.parent / "again.dfc", Options()).path
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert files == sorted(
        p.relative_to(from_onnx.path) for p in from_onnx.path.rglob("*") if p.is_file()
    )
    for name in files:
        assert (again / name).read_bytes() == (from_onnx.path / name).read_bytes(), name


def test_sentences_that_mean_the_same_are_close(from_onnx: Model) -> None:
    batch = minilm.encode(SENTENCES)
    assert 0 in batch["attention_mask"]
    hidden = from_onnx.run(batch)["last_hidden_state"]
    embeddings = minilm.embed(hidden, batch["attention_mask"])
    _, same, other = embeddings @ embeddings[0]
    assert same > 0.6 > 0.2 > other


def test_ids_outside_the_vocabulary_are_refused(from_onnx: Model) -> None:
    inputs = minilm.random_inputs(1, 4)
    inputs["input_ids"][0, 2] = 30522
    with pytest.raises(InputError, match="30522"):
        from_onnx.run(inputs)


# -------------------------------------------------------------------------------- weight-only int8


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return dfc.compile(minilm_int8.path(), out=tmp_path_factory.mktemp("int8") / "m.dfc")


@pytest.mark.parametrize("shape", [(1, 1), (3, 77), (2, 128)], ids=str)
def test_int8_weights_compute_what_onnx_runtime_computes(
    int8: Model, shape: tuple[int, int]
) -> None:
    inputs = minilm.random_inputs(*shape)
    names = {tensor.name for tensor in int8.signature.inputs}
    given = {name: array for name, array in inputs.items() if name in names}
    found = int8.run(given)
    expected = onnxruntime(minilm_int8.path())(given)
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() <= TOLERANCES["float32"][1]


def test_int8_weights_stay_int8_in_the_artifact(int8: Model) -> None:
    stored = sum(weight["bytes"] for weight in int8.manifest["weights"])
    assert stored < 1.1 * minilm_int8.path().stat().st_size
