"""Attention and fused rows as programs for GPUs, emulated, against the interpreter in float64."""

from __future__ import annotations

import numpy as np
import pytest
from test_row_kernels import PROGRAM as ROWS
from test_row_kernels import inputs as row_inputs

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret
from tests.cuda_emulation import EmulatedModel, emulated_model, toolkit
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

ATTENTION = """
program attend(B, S, T) {
  input @q: f32[B, 4, S, 32]
  input @k: f32[B, 2, T, 32]
  input @v: f32[B, 2, T, 32]
  input @wide: f32[B, 2, S, 140]
  input @padding: bool[B, 1, 1, T]
  input @added: f32[1, 4, S, T]
  input @qkv: f32[B, S, 3, 2, 32]
  input @exact: f64[B, 1, S, 9]
  output @plain: f32[B, 4, S, 32]
  output @padded: f32[B, 4, S, 32]
  output @moved: f32[B, 4, S, 32]
  output @own: f32[B, 2, S, 32]
  output @warps: f32[B, 2, S, 140]
  output @doubles: f64[B, 1, S, 9]
  state main {
    @plain: f32[B, 4, S, 32] = attention @q, @k, @v {scale = 0.25, causal = true}
    @padded: f32[B, 4, S, 32] = attention @q, @k, @v, @padding {scale = 0.25}
    @moved: f32[B, 4, S, 32] = attention @q, @k, @v, @added {scale = 0.25, causal = true}
    %0: f32[3, B, 2, S, 32] = transpose @qkv {perm = [2, 0, 3, 1, 4]}
    %1: f32[1, B, 2, S, 32] = slice %0 {starts = [0, 0, 0, 0, 0]}
    %2: f32[1, B, 2, S, 32] = slice %0 {starts = [1, 0, 0, 0, 0]}
    %3: f32[1, B, 2, S, 32] = slice %0 {starts = [2, 0, 0, 0, 0]}
    %4: f32[B, 2, S, 32] = reshape %1
    %5: f32[B, 2, S, 32] = reshape %2
    %6: f32[B, 2, S, 32] = reshape %3
    @own: f32[B, 2, S, 32] = attention %4, %5, %6 {scale = 0.125}
    @warps: f32[B, 2, S, 140] = attention @wide, @wide, @wide {scale = 0.1, causal = true}
    @doubles: f64[B, 1, S, 9] = attention @exact, @exact, @exact {scale = 0.5}
  }
}
"""
HALVES = """
program halves(S) {
  input @x: bf16[S, 40]
  input @r: bf16[S, 40]
  input @g: bf16[40]
  input @q: bf16[1, 2, S, 64]
  input @k: bf16[1, 1, S, 64]
  output @y: bf16[S, 40]
  output @o: bf16[1, 2, S, 64]
  state main {
    @y: bf16[S, 40] = fused @x, @r, @g {kernel = "row"} do
      %.0: bf16[S, 40] = add @x, @r
      %.1: bf16[S, 40] = rms_norm %.0, @g {epsilon = 1e-06}
    end
    @o: bf16[1, 2, S, 64] = attention @q, @k, @k {scale = 0.125, causal = true}
  }
}
"""


def compare(model: EmulatedModel, given: dict[str, np.ndarray]) -> None:
    """What a model gives against the interpreter, in float64."""
    expected = interpret(model.program, given, precision=np.dtype(np.float64))
    found = model.run(given)
    for name, array in found.items():
        assert_close(array, expected[name].astype(array.dtype), name)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 31), (2, 64), (7, 257)])
def test_rows_are_made_and_normalized_at_once(rows: int, columns: int) -> None:
    compare(emulated_model(ROWS), row_inputs(rows, columns))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 7, 31), (1, 70, 70), (2, 1, 260)])
def test_attention(sizes: tuple[int, int, int]) -> None:
    b, s, t = sizes
    rng = np.random.default_rng(sizes)
    model = emulated_model(ATTENTION)
    bindings = {"B": b, "S": s, "T": t}
    given = {
        c.name: rng.normal(size=[bindings.get(str(d), d) for d in c.type.shape])
        for c in model.program.inputs
    }
    given = {c.name: given[c.name].astype(c.type.dtype.numpy) for c in model.program.inputs}
    given["padding"] = rng.random((b, 1, 1, t)) < 0.7
    compare(model, given)


def test_elements_of_16_bits() -> None:
    rng = np.random.default_rng(0)
    model = emulated_model(HALVES)
    for s in (1, 33, 150):
        given = {
            c.name: rng.normal(size=[s if str(d) == "S" else d for d in c.type.shape]).astype(
                c.type.dtype.numpy
            )
            for c in model.program.inputs
        }
        compare(model, given)


def test_heads_that_no_kernel_takes_are_named() -> None:
    with pytest.raises(UnsupportedError, match="heads of 700 elements; the kernels end at 512"):
        EmulatedModel(
            """
            program wide() {
              input @q: f32[1, 1, 3, 700]
              output @o: f32[1, 1, 3, 700]
              state main {
                @o: f32[1, 1, 3, 700] = attention @q, @q, @q {scale = 1.0}
              }
            }
            """
        )
