"""The table of `dfc bench --per-kernel`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dfcompiler
from dfcompiler.cli import main

MODEL = """program p(S) {
  input @x: f32[S, 64]
  output @y: f32[S, 64]
  persist @sum: f32[64]
  loop again for i in 0..3 {
    state step {
      %0: f32[64] = exp @sum
      @sum: f32[64] = tanh %0
    }
  }
  state main {
    %0: f32[S, 64] = softmax @x {axis = 1}
    %1: f32[64, S] = transpose %0 {perm = [1, 0]}
    %2: f32[64, S] = softmax %1 {axis = 1}
    @y: f32[S, 64] = transpose %2 {perm = [1, 0]}
  }
}"""


def written(folder: Path) -> Path:
    file = folder / "m.ir"
    file.write_text(MODEL, encoding="utf-8")
    return file


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["bench", *map(str, arguments), "--rounds", "3", "--threads", "1"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_kernel_has_both_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(
        capsys, written(tmp_path), "--shape", "S=300", "--per-kernel", "--format", "json"
    )
    assert code == 0
    rows = json.loads(out)["kernels"]
    assert sorted(row["kernel"] for row in rows).count("softmax") == 2
    assert [row["runs"] for row in rows if row["result"] == "@sum"] == [3]
    assert all(row["measured_us"] > 0 for row in rows)
    assert all(row["predicted_us"] > 0 for row in rows)
    assert [row["measured_us"] for row in rows] == sorted(
        (row["measured_us"] for row in rows), reverse=True
    )


def test_an_artifact_that_does_not_measure_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = dfcompiler.api.import_model(written(tmp_path))
    with dfcompiler.compile(program, tmp_path / "m.dfc") as model:
        path = model.path
    code, _, err = bench(capsys, path, "--shape", "S=8", "--per-kernel")
    assert code != 0
    assert "does not measure its operators" in err
    assert "--profile" in err
