"""Artifacts for GPUs that measure their operators, emulated: a millisecond between two events."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dfcompiler
from dfcompiler.cli import main
from dfcompiler.codegen.gpus import Driver
from dfcompiler.errors import UsageError
from dfcompiler.ir import parse
from dfcompiler.runtime import DeviceModel, load
from tests.cuda_emulation.artifact import emulate_artifact
from tests.unit.test_cuda_artifact import has_nvcc

pytestmark = pytest.mark.skipif(not has_nvcc(), reason="nvcc is missing")

PROGRAM = """
program measured(S <= 4096) {
  input @x: f32[S, 64]
  output @y: f32[S, 64]
  persist @count: f32[1]
  loop again for i in 0..3 {
    state step {
      %0: f32[1] = constant {value = 1.0}
      @count: f32[1] = add @count, %0
    }
  }
  state main {
    %0: f32[S, 64] = exp @x
    @y: f32[S, 64] = tanh %0
  }
}
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    made = dfcompiler.compile(
        parse(PROGRAM), folder / "gpu.dfc", target="cuda:sm_90", pipeline=[], profile=True
    )
    return emulate_artifact(made.path, folder / "emulated.dfc")


def test_operators_are_measured(artifact: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    with load(artifact) as model:
        assert sum(time.seconds for time in model.operator_times) == 0
        for _ in range(2):  # the events of the first call serve the second
            found = model.run({"x": x})
            assert list(found) == ["y"]
            times = {time.kind: time.seconds for time in model.operator_times}
            assert times == pytest.approx(
                {"constant": 3e-3, "add": 3e-3, "exp": 1e-3, "tanh": 1e-3}
            )


def test_a_call_that_measures_is_no_graph(artifact: Path) -> None:
    with load(artifact) as model:
        assert isinstance(model, DeviceModel)
        with pytest.raises(UsageError, match="measure its operators; such calls are not kept"):
            model.keep_graphs(True)


def test_kernels_are_reported(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(artifact), "--shape", "S=40", "--per-kernel", "--rounds", "3"]
    code = main([*arguments, "--format", "json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found = json.loads(captured.out)
    rows = {row["kernel"]: row for row in found["kernels"]}
    assert [rows[kind]["runs"] for kind in ("constant", "add", "exp", "tanh")] == [3, 3, 1, 1]
    assert all(row["predicted_us"] > 0 for row in rows.values())
    # Read once and written once in a millisecond; an H200 could move 4.8 GB.
    assert rows["tanh"]["measured_us"] == pytest.approx(1000)
    assert rows["tanh"]["memory_share"] == pytest.approx(2 * 40 * 64 * 4 / 4.8e9)
    assert found["results"][0]["median_ms"] > 0
    assert main(arguments) == 0
    assert "of memory rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--against", "onnxruntime"], "peers of this command run on the CPU"),
        (["--threads", "2"], "cuda:sm_90 is a GPU; there are no threads to set"),
    ],
)
def test_what_a_gpu_has_not(
    artifact: Path, option: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(artifact), *option]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "verify"])
def test_nothing_is_compiled_for_a_gpu_that_is_not_there(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dfcompiler.codegen.gpus.find_driver", lambda: Driver("13.0", ()))
    (tmp_path / "m.ir").write_text(PROGRAM)
    assert main([command, str(tmp_path / "m.ir"), "--target", "cuda:sm_90"]) == 8
    said = capsys.readouterr().err
    assert "there is no GPU on this machine; code for cuda:sm_90 cannot run here" in said
