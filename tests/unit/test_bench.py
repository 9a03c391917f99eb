"""Engines in processes of their own, and what `dfc bench` makes of their times."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dfcompiler as dfc
from dfcompiler.cli import main
from dfcompiler.errors import DfcError, ModelError, ToolchainError, UsageError
from dfcompiler.reference import engines
from dfcompiler.reference.ceilings import Rates, measure_rates
from dfcompiler.reference.difference import compare
from dfcompiler.reference.engines import PEERS, Entry, check_peers, load_engine
from dfcompiler.reference.timing import Race, Timing, race, ratio
from dfcompiler.reference.worker import Worker
from dfcompiler.target import parse_target
from models.onnx_export import export_tiny
from tests.tolerances import TOLERANCES

SIZES = {"batch": 2, "sequence": 7}
BUILDER = "models.bert:build"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny("bert", tmp_path_factory.mktemp("bench") / "bert.onnx")


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    return dfc.compile(model, out=model.with_suffix(".dfc")).path


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    tensors: dict[str, Any] = importlib.import_module("models.bert").example_inputs(**SIZES)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def entry(engine: str, model: object, inputs: dict[str, np.ndarray]) -> Entry:
    shapes = {name: array.shape for name, array in inputs.items()}
    return Entry(engine, str(model), 1, shapes, SIZES)


def test_every_peer_computes_the_same(
    model: Path, artifact: Path, inputs: dict[str, np.ndarray]
) -> None:
    models = dict.fromkeys(PEERS, model) | {"dfcompiler": artifact}
    models |= dict.fromkeys(("torch", "inductor"), BUILDER)  # type: ignore[arg-type]
    with torch.no_grad():
        module = importlib.import_module("models.bert").build()
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        (expected,) = module(**tensors).to_tuple()
    for name, path in models.items():
        with Worker(entry(name, path, inputs)) as worker:
            (found,) = worker.outputs(inputs).values()
            (difference,) = compare({"0": found}, {"0": expected.numpy()})
            assert difference.max_abs <= TOLERANCES["float32"][1], name
            assert worker.turn(seconds=0.0) > 0


def test_a_race_times_every_worker_in_every_round(
    artifact: Path, inputs: dict[str, np.ndarray]
) -> None:
    one, two = (Worker(entry("dfcompiler", artifact, inputs)) for _ in range(2))
    with one, two:
        for worker in (one, two):
            worker.outputs(inputs)
        found = race({"one": one, "two": two}, rounds=3, pause_s=0.0)
        assert one.memory()["VmHWM"] >= one.memory()["RssAnon"] > 0
    assert [timing.name for timing in found.timings] == ["one", "two"]
    assert all(len(timing.samples_s) == 3 for timing in found.timings)
    assert found.rates.tile_gflops > 0


def test_state_is_reset_before_each_call(tmp_path: Path) -> None:
    text = """program p() {
      input @x: f32[2]
      persist @total: f32[2]
      output @y: f32[2]
      state s {
        @total: f32[2] = add @total, @x
        @y: f32[2] = copy @total
      }
    }"""
    (tmp_path / "p.ir").write_text(text)
    x = {"x": np.ones(2, np.float32)}
    dfc.compile(tmp_path / "p.ir", out=tmp_path / "p.dfc")
    with Worker(entry("dfcompiler", tmp_path / "p.dfc", x)) as worker:
        for _ in range(2):
            np.testing.assert_array_equal(worker.outputs(x)["y"], x["x"])


def test_ratios_are_of_rounds() -> None:
    ours, peer = Timing("a", (1.0, 2.0, 4.0)), Timing("b", (2.0, 6.0, 4.0))
    assert ratio(ours, peer).median == 2
    assert Race((ours, peer), Rates(1, 1, None)).timings[0].median_s == 2


@pytest.mark.parametrize("name", ["cpu", "cpu:x86-64-v3", "cpu:generic"])
def test_ceilings_are_measured_with_the_targets_instructions(name: str) -> None:
    rates = measure_rates(parse_target(name), 1, 0.002)
    assert rates.fma_gflops > 0
    assert rates.tile_gflops > 0
    assert rates.bf16_gflops is None or rates.bf16_gflops > 0


# ----------------------------------------------------------------------------------------- errors


def test_peers_that_are_not_known_or_compute_otherwise() -> None:
    with pytest.raises(UsageError, match="there is no peer tensorrt"):
        check_peers(["tensorrt"])
    with pytest.raises(UsageError, match=r"onnxruntime is not run in bf16; .*: openvino"):
        check_peers(["onnxruntime"], "bf16")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> Any:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(engines.importlib, "import_module", missing)
    with pytest.raises(ToolchainError) as caught:
        load_engine(entry(name, "m.onnx", {}))
    assert "is not installed" in caught.value.message
    assert caught.value.hint.startswith("install it with pip install 'dfcompiler[")


def test_a_model_that_a_peer_cannot_take(
    artifact: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(model), "--against", "torch", "--rounds", "3"]) == 2
    assert "torch cannot run" in (text := capsys.readouterr().err)
    assert "--module package.module:function" in text
    assert main(["bench", str(artifact), "--against", "openvino"]) == 2
    assert "--model MODEL" in capsys.readouterr().err
    broken = tmp_path / "broken.onnx"
    broken.write_text("no model")
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(ModelError, match=f"{name} refuses"):
            load_engine(entry(name, broken, {}))


def test_a_worker_that_ends(artifact: Path, inputs: dict[str, np.ndarray]) -> None:
    with Worker(entry("dfcompiler", artifact, inputs)) as worker:
        worker.outputs(inputs)
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(ModelError, match="dfcompiler ended with -9"):
            worker.turn()
    with Worker(entry("onnxruntime", "missing.onnx", inputs)) as worker, pytest.raises(DfcError):
        worker.outputs(inputs)
