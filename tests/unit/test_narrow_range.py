"""What 16 bits have no place for, against torch's conversions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dfcompiler.ir import DType, parse
from dfcompiler.pipeline import Step, assemble
from dfcompiler.target import parse_target
from passes.rules.narrow_range import FILL, greatest_lost, rounded, rounded_number
from tests.programs import assert_same_results

TORCH = {DType.F16: torch.float16, DType.BF16: torch.bfloat16}
LOWEST = float(np.finfo(np.float32).min)
STATE = """
program p() {
  input   @x: f32[4]
  persist @most: f32[4]
  output  @y: f32[4]
  state main {
    @most: f32[4] = max @x, @most
    @y: f32[4] = tanh @most
  }
}
"""


def as_torch(values: np.ndarray, dtype: DType) -> np.ndarray:
    return torch.from_numpy(values).to(TORCH[dtype]).float().numpy()


@pytest.mark.parametrize("dtype", TORCH)
def test_what_has_a_place_is_rounded_to_nearest_even(dtype: DType) -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    values[:4] = np.nan, np.inf, -np.inf, 65519.0
    assert greatest_lost(values, dtype) == 0.0
    found = rounded(values, dtype)
    assert found.dtype == dtype.numpy
    np.testing.assert_array_equal(found.astype(np.float32), as_torch(values, dtype))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("magnitude", [65520.0, 1e6, 1e12])
def test_what_becomes_infinity_in_f16_is_lost(magnitude: float, sign: float) -> None:
    values = np.array([1.0, sign * magnitude, np.nan, -np.inf, LOWEST], np.float32)
    assert np.isinf(as_torch(values, DType.F16)[1])
    assert greatest_lost(values, DType.F16) == np.float32(magnitude)
    assert greatest_lost(values, DType.BF16) == 0.0


@pytest.mark.parametrize("dtype", TORCH)
def test_fills_of_masks_become_the_most_negative_number(dtype: DType) -> None:
    values = np.array([0.0, LOWEST, -np.inf], np.float32)
    lowest = torch.finfo(TORCH[dtype]).min
    assert greatest_lost(values, dtype) == 0.0
    assert rounded(values, dtype).astype(np.float32).tolist() == [0.0, lowest, -np.inf]
    assert rounded_number((0.0, LOWEST, -np.inf), dtype) == (0.0, lowest, -np.inf)


def test_the_greatest_of_float_is_no_fill() -> None:
    assert greatest_lost(-LOWEST, DType.BF16) == np.float32(-LOWEST)
    assert greatest_lost(-LOWEST, DType.F16) == np.float32(-LOWEST)


def test_fills_are_not_changed_by_what_f16_holds() -> None:
    assert np.float32(FILL) + np.float32(65504) == np.float32(FILL)


def test_nothing_is_lost_of_no_values() -> None:
    assert greatest_lost(np.zeros((0, 3), np.float32), DType.F16) == 0.0


@pytest.mark.parametrize(("first", "stored"), [(1e6, DType.F32), (1e3, DType.F16)])
def test_state_whose_first_values_have_no_place_keeps_f32(first: float, stored: DType) -> None:
    program = replace(parse(STATE), data={"most": np.full(4, first, np.float32)})
    narrow = Step("narrow-values", (("precision", "f16"),))
    result = assemble([narrow], parse_target("cuda:sm_90")).run(program)
    assert result.program.table()["most"].type.dtype is stored
    reasons = [str(declined) for declined in result.records[0].declined]
    assert any("@most holds 1e+06" in reason for reason in reasons) == (stored is DType.F32)
    assert_same_results(program, result.program, {})
