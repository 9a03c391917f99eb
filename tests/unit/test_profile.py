"""Artifacts that measure their operators, and that others carry nothing of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dfcompiler
from dfcompiler.errors import UsageError
from dfcompiler.ir import parse
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target

PROGRAM = parse(
    """program p(S) {
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
    %1: f32[64, S] = transpose %0 {perm = [1, 0]}
    %2: f32[64, S] = softmax %1 {axis = 1}
    @y: f32[S, 64] = transpose %2 {perm = [1, 0]}
  }
}"""
)


def test_operators_are_measured(tmp_path: Path) -> None:
    with dfcompiler.compile(PROGRAM, tmp_path / "m", profile=True) as model:
        x = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
        assert sum(time.seconds for time in model.operator_times) == 0
        first = model.run({"x": x})
        times = model.operator_times
        second = model.run({"x": x})
    with dfcompiler.compile(PROGRAM, tmp_path / "plain") as plain:
        expected = plain.run({"x": x})
    assert list(first) == ["y"]
    np.testing.assert_array_equal(first["y"], expected["y"])
    np.testing.assert_array_equal(second["y"], expected["y"])
    kinds = [time.kind for time in times]
    assert kinds[-1] == "transpose"
    assert "softmax" in kinds
    assert all(time.seconds > 0 for time in times)
    assert sum(time.seconds for time in times) < 1


def test_other_artifacts_carry_no_stamps(tmp_path: Path) -> None:
    with dfcompiler.compile(PROGRAM, tmp_path / "plain") as model:
        assert "measured" not in model.manifest
        with pytest.raises(UsageError, match="does not measure"):
            _ = model.operator_times
    source = (tmp_path / "plain" / "src" / "program.cpp").read_text()
    assert "omp_get_wtime" not in source


def test_every_operator_but_views_has_a_stamp() -> None:
    program = parse(
        """program p(S) {
  input @x: f32[S, 8]
  output @y: f32[4, S, 2]
  temp @slot0: u8[S*32]
  state main {
    %0: f32[S, 8] = exp @x {slot = "slot0"}
    %1: f32[4, S, 2] = reshape %0 {alias = true}
    @y: f32[4, S, 2] = neg %1
  }
}"""
    )
    lowered = lower(program, parse_target("cpu"), profile=True)
    assert [op.kind for op in lowered.measured] == ["exp", "neg"]
    assert lowered.program.outputs[-1].type.shape == (3,)
    assert lower(program, parse_target("cpu")).measured == ()
