"""Reductions of many elements to few results, rows along any axis: emulated, against float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target
from tests.cuda_emulation import emulated_model, toolkit
from tests.tolerances import assert_close

SPLIT = """
program split(N) {
  input  @x: f32[2048, 64]
  input  @h: bf16[3, 1024, 40]
  input  @n: f32[N, 8]
  input  @k: i32[N, 3, 2]
  output @rows: f32[64]
  output @all: f32[]
  output @mean: bf16[1, 1, 40]
  output @outer: bf16[1024]
  output @free: f32[1, 8]
  output @most: i32[3]
  state main {
    @rows: f32[64] = reduce_sum @x {axes = [0]}
    @all: f32[] = reduce_sum @x {axes = [0, 1]}
    @mean: bf16[1, 1, 40] = reduce_mean @h {axes = [0, 1], keepdims = true}
    @outer: bf16[1024] = reduce_max @h {axes = [0, 2]}
    @free: f32[1, 8] = reduce_sum @n {axes = [0], keepdims = true}
    @most: i32[3] = reduce_max @k {axes = [0, 2]}
  }
}
"""
MOVED = """
program moved() {
  input  @x: f32[4, 200, 3; 0 2 1]
  output @y: f32[4, 200, 3; 0 2 1]
  state main {
    @y: f32[4, 200, 3; 0 2 1] = softmax @x {axis = 1}
  }
}
"""
emulated = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")


def reasons(text: str) -> dict[str, str]:
    """How each operator is implemented, by result."""
    lowered = lower(parse(text), parse_target("cuda:sm_90"))
    return {record.result: record.reason for record in lowered.kernels}


def test_few_results_are_split_among_blocks() -> None:
    found = reasons(SPLIT)
    # 512 KB in parts of 64 KB; a free extent in as many as the multiprocessors take.
    assert "in 8 parts" in found["@rows"]
    assert "in 8 parts" in found["@all"]
    assert "in 3 parts" in found["@mean"]
    assert "in 264 parts" in found["@free"]
    assert "in 88 parts" in found["@most"]
    assert "parts" not in found["@outer"]


@emulated
@pytest.mark.parametrize("n", [1, 33, 1000])
def test_parts_are_added_up(n: int) -> None:
    rng = np.random.default_rng(n)
    given = {
        "x": rng.normal(size=(2048, 64)).astype(np.float32),
        "h": rng.normal(size=(3, 1024, 40)).astype(ml_dtypes.bfloat16),
        "n": rng.normal(size=(n, 8)).astype(np.float32),
        "k": rng.integers(-(2**31), 2**31 - 1, (n, 3, 2)).astype(np.int32),
    }
    expected = interpret(parse(SPLIT), given, precision=np.dtype(np.float64))
    found = emulated_model(SPLIT).run(given)
    for name, array in found.items():
        assert_close(array, expected[name].astype(array.dtype), name)


def test_a_softmax_takes_threads_for_the_axis_that_it_is_of() -> None:
    """50 packs of 16 bytes along axis 1; by the last axis it would be one of 12 bytes."""
    assert reasons(MOVED)["@y"].startswith("32 threads a row")
