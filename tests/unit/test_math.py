"""Elementary functions against float64, over the range of float32, on each instruction set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from compile_kernels import call, compile_kernels, runnable_targets
from scipy import special

FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    # name: (reference, error in units in the last place)
    "exp": (np.exp, 1.05),
    "exp_nonpositive": (np.exp, 1.05),
    "log": (np.log, 1.0),
    "tanh": (np.tanh, 1.5),
    "erf": (special.erf, 1.5),
    "sigmoid": (special.expit, 2.6),
    "silu": (lambda x: x * special.expit(x), 3.2),
    "relu": (lambda x: np.maximum(x, 0), 0.0),
    "sqrt": (np.sqrt, 0.5),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.5),
}
GELUS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
}
SCALAR_ONLY = ("sqrt", "rsqrt")
NAMES = (*FUNCTIONS, *GELUS)
SOURCE = """#include "cpu/math.h"
extern "C" {{
{}
}}
""".format(
    "\n".join(
        f"""void {name}_scalar(const float* x, float* y, long n) {{
  for (long i = 0; i < n; ++i) y[i] = dfc::{name}(x[i]);
}}
void {name}_double(const double* x, double* y, long n) {{
  for (long i = 0; i < n; ++i) y[i] = dfc::{name}(x[i]);
}}"""
        for name in NAMES
    )
    + "\n"
    + "\n".join(
        f"""void {name}_vector(const float* x, float* y, long n) {{
  for (long i = 0; i < n; i += dfc::lanes<float>) dfc::store(y + i, dfc::{name}(dfc::load(x + i)));
}}"""
        for name in NAMES
        if name not in SCALAR_ONLY
    )
)
LEAST_NORMAL = np.finfo(np.float32).tiny
EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40, -1e-40, 3e38, -3e38, 1, -1]
EDGES += [88.72, 88.73, -87.3, -87.4, -103.9, -104.1, 0.625, 0.9, 4.0, 13.0, -13.0, 9.01, 16.6]


def samples() -> np.ndarray:
    random = np.random.default_rng(0)
    patterns = random.integers(-(2**31), 2**31, 1 << 18).astype(np.int32).view(np.float32)
    parts = [np.linspace(-12, 12, 1 << 17), np.linspace(-110, 110, 1 << 16), EDGES]
    parts.append(np.where(np.isnan(patterns), np.float32(1), patterns))
    values = np.concatenate([np.asarray(part, np.float32) for part in parts])
    return np.concatenate([values, np.zeros(-len(values) % 16, np.float32)])


def evaluate(name: str, form: str, target: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    library, _ = compile_kernels(SOURCE, target)
    call(library[f"{name}_{form}"], x, y, len(x))
    return y


def forms(name: str) -> tuple[str, ...]:
    return ("scalar",) if name in SCALAR_ONLY else ("scalar", "vector")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("target", runnable_targets())
def test_error_in_units_in_the_last_place(target: str, name: str) -> None:
    reference, bound = FUNCTIONS[name]
    x = samples()
    if name == "exp_nonpositive":
        x = -np.abs(x)
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    for form in forms(name):
        actual = evaluate(name, form, target, x)
        # silu(-inf) is 0 times infinity.
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
        np.testing.assert_array_equal(np.isinf(actual), np.isinf(rounded))
        finite = np.isfinite(rounded)
        # Where the result is no normal number, most functions may give zero.
        unit = np.spacing(np.maximum(np.abs(rounded[finite]), LEAST_NORMAL))
        error = np.abs(actual[finite] - expected[finite])
        normal = np.abs(expected[finite]) >= LEAST_NORMAL * (1 if name != "silu" else 128)
        assert np.max((error / unit)[normal]) <= bound
        assert np.max(error[~normal], initial=0) <= LEAST_NORMAL * 128


@pytest.mark.parametrize("name", GELUS)
@pytest.mark.parametrize("target", runnable_targets())
def test_gelu_is_as_near_as_its_definition_in_float32(target: str, name: str) -> None:
    x = samples()
    with np.errstate(all="ignore"):
        expected = GELUS[name](x.astype(np.float64))
        rounded = expected.astype(np.float32)
    for form in forms(name):
        actual = evaluate(name, form, target, x)
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
        finite = np.isfinite(rounded)
        error = np.abs(actual[finite] - expected[finite])
        large = np.abs(expected[finite]) > 1
        assert np.max(error[~large]) <= 1e-7
        assert np.max((error / np.spacing(np.abs(rounded[finite])))[large]) <= 1.5


@pytest.mark.parametrize("target", runnable_targets())
def test_exp_keeps_denormal_results(target: str) -> None:
    x = np.linspace(-103.5, -87.4, 1 << 12, dtype=np.float32)
    expected = np.exp(x.astype(np.float64)).astype(np.float32)
    actual = evaluate("exp", "scalar", target, x)
    assert np.max(np.abs(actual - expected)) <= np.float32(1e-45)
    assert expected.min() > 0


@pytest.mark.parametrize("name", ["tanh", "erf", "relu", "silu", "gelu", "gelu_tanh"])
def test_signed_zeros_are_kept(name: str) -> None:
    x = np.array([0.0, -0.0] * 8, np.float32)
    actual = evaluate(name, "vector", runnable_targets()[0], x)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(x))


@pytest.mark.parametrize("name", NAMES)
def test_double_overloads(name: str) -> None:
    x = np.linspace(-20, 20, 4001)
    reference = GELUS.get(name) or FUNCTIONS[name][0]
    with np.errstate(all="ignore"):
        expected = reference(x)
    y = np.empty_like(x)
    library, _ = compile_kernels(SOURCE, runnable_targets()[0])
    call(library[f"{name}_double"], x, y, len(x))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
