"""Normalizations with what makes their rows, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from compile_sdfg import Compiled

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret

PROGRAM = """
program rows(A, N) {
  input @words: f32[5, N]
  input @i: i64[A, 3]
  input @x: f32[A, 3, N]
  input @p: f32[4, N]
  input @c: f32[3, 1]
  input @g: f32[N]
  input @b: f32[N]
  output @layer: f32[A, 3, N]
  output @rms: f32[A, 3, N]
  output @wide: f64[A, N]
  input @d: f64[A, N]
  state main {
    %0: f32[3, N] = slice @p {starts = [1, 0]}
    @layer: f32[A, 3, N] = fused @words, @i, @x, %0, @c, @g, @b {kernel = "row"} do
      %.0: f32[A, 3, N] = gather @words, @i {axis = 0}
      %.1: f32[A, 3, N] = add %.0, @x
      %.2: f32[A, 3, N] = add %.1, %0
      %.3: f32[A, 3, N] = mul %.2, @c
      %.4: f32[A, 3, N] = layer_norm %.3, @g, @b {epsilon = 1e-05}
    end
    @rms: f32[A, 3, N] = fused @x, @g {kernel = "row"} do
      %.0: f32[] = constant {value = 1.5}
      %.1: f32[A, 3, N] = mul @x, %.0
      %.2: f32[A, 3, N] = gelu %.1
      %.3: f32[A, 3, N] = rms_norm %.2, @g {epsilon = 1e-06}
    end
    @wide: f64[A, N] = fused @d {kernel = "row"} do
      %.0: f64[A, N] = add @d, @d
      %.1: f64[A, N] = layer_norm %.0 {epsilon = 1e-05}
    end
  }
}
"""


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled(PROGRAM)


def inputs(rows: int, columns: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "words": normal(5, columns),
        "i": rng.integers(-5, 5, (rows, 3)),
        "x": normal(rows, 3, columns),
        "p": normal(4, columns),
        "c": normal(3, 1),
        "g": normal(columns),
        "b": normal(columns),
        "d": rng.standard_normal((rows, columns)),
    }


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 31), (2, 64), (7, 257)])
def test_rows_are_made_and_normalized_at_once(compiled: Compiled, rows: int, columns: int) -> None:
    given = inputs(rows, columns)
    expected = interpret(compiled.program, given, precision=np.dtype(np.float64))
    found = compiled.run(given)
    for name in ("layer", "rms"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["wide"], expected["wide"], rtol=1e-12, atol=1e-12)


def test_elements_without_a_row_kernel_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="has elements of i64"):
        Compiled(
            """
            program mixed(A) {
              input @x: i64[A, 4]
              output @y: f32[A, 4]
              state main {
                @y: f32[A, 4] = fused @x {kernel = "row"} do
                  %.0: f32[A, 4] = cast @x {to = f32}
                  %.1: f32[A, 4] = layer_norm %.0 {epsilon = 1e-05}
                end
              }
            }
            """
        )
