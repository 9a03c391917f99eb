"""Layers whose caches begin with values of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.ir import Program, interpret, parse
from passes.roll_layers import RollLayers

PROGRAM = parse(
    """program p(S) {
  input @x: f32[S, 2]
  input @at: i64[S]
  persist @k.0: f32[4, 2]
  persist @k.1: f32[4, 2]
  persist @k.2: f32[4, 2]
  output @y: f32[S, 2]
  state main {
    @k.0: f32[4, 2] = index_copy @k.0, @at, @x {axis = 0}
    %0: f32[S, 2] = gather @k.0, @at {axis = 0}
    @k.1: f32[4, 2] = index_copy @k.1, @at, %0 {axis = 0}
    %1: f32[S, 2] = gather @k.1, @at {axis = 0}
    @k.2: f32[4, 2] = index_copy @k.2, @at, %1 {axis = 0}
    @y: f32[S, 2] = gather @k.2, @at {axis = 0}
  }
}"""
)


def test_stacked_state_begins_with_the_values_of_its_parts() -> None:
    data = {f"k.{i}": np.full((4, 2), i + 1, np.float32) for i in range(3)}
    program = replace(PROGRAM, data=data)
    rolled = RollLayers().run(program, lambda op, reason: pytest.fail(reason))
    assert [c.parts for c in rolled.containers if c.parts] == [("k.0", "k.1", "k.2")]
    inputs = {"x": np.zeros((1, 2), np.float32), "at": np.array([2])}
    kept: list[dict[str, np.ndarray]] = [{}, {}]
    for one, persistent in zip((program, rolled), kept, strict=True):
        interpret(one, inputs, persistent=persistent)
    assert kept[0].keys() == kept[1].keys() == data.keys()
    for name, array in kept[0].items():
        np.testing.assert_array_equal(kept[1][name], array)
        assert array[:, 0].tolist() == [data[name][0, 0], data[name][0, 0], 0, data[name][0, 0]]


def test_state_that_begins_differently_stays_apart() -> None:
    program: Program = replace(PROGRAM, data={"k.1": np.ones((4, 2), np.float32)})
    reasons: list[str] = []
    assert RollLayers().run(program, lambda op, reason: reasons.append(reason)) is program
    assert reasons == ["@k.1 begins with values of its own, others with zeros"]
