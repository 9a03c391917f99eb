"""The matrix product of bfloat16 operands: each form of the kernel against float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from compile_kernels import aligned, call, compile_kernels, runnable_targets

from dfcompiler.codegen.weights import pack
from dfcompiler.ir.types import Layout, PhysicalAxis

SOURCE = """#include "cpu/gemm_bf16.h"
using namespace dfc;
using namespace dfc::gemm_bf16;

template <class Out, class E>
void product(const long* s, const bf16* a, const bf16* b, Out* c, const E& epilogue) {
  for (long block = 0; block * s[6] < s[0]; ++block)
    for (long panel = 0; panel * NR < s[1]; ++panel)
      packed_task(block, panel, s[6], s[0], s[1], s[2], Rows{a, s[3], s[4]}, b, c, s[5], epilogue);
}
#define PRODUCT(name, Out, ...)                                                                \\
  extern "C" void name(const long* s, const bf16* a, const bf16* b, Out* c, const float* bias, \\
                       const float* residual) {                                               \\
    (void)bias, (void)residual;                                                               \\
    product(s, a, b, c, __VA_ARGS__);                                                          \\
  }
PRODUCT(plain, float, Epilogue<>{})
PRODUCT(rounded, bf16, Epilogue<>{})
PRODUCT(bias_gelu, float, Epilogue{Bias<float>{bias}, Gelu{}})
PRODUCT(bias_add, float, Epilogue{Bias<float>{bias}, AddResidual<float>{residual, s[5]}})
extern "C" void round_all(bf16* to, const float* from, long count) {
  for (long block = 0; block * 64 < count; ++block) round_block(to, from, block, 64, count);
}
#ifdef __AMX_BF16__
extern "C" int form() { return amx::permitted() ? 2 : -1; }
#elif defined(__AVX512BF16__)
extern "C" int form() { return 1; }
#else
extern "C" int form() { return 0; }
#endif
extern "C" int panel_width() { return NR; }
"""
FORMS = {"amx": 2, "bf16": 1}
SIZES = [(m, n, 31) for m in (1, 2, 5, 12, 13, 16, 17, 31, 32, 33, 97, 257) for n in (1, 31, 64)]
SIZES += [(m, 70, k) for m in (1, 7, 40) for k in (1, 2, 7, 32, 33, 64, 257, 1000, 1100)]
SIZES += [(0, 5, 3), (3, 5, 0), (300, 341, 96)]


def panel_layout(width: int) -> Layout:
    """``1/NR 0/2 1%NR 0%2``."""
    tiles = (1, width, False), (0, 2, False), (1, width, True), (0, 2, True)
    return Layout(tuple(PhysicalAxis(*tile) for tile in tiles))


def check(target: str, name: str, m: int, n: int, k: int, order: str = "C") -> None:
    """Compares one product with float64; the operands are what bfloat16 holds."""
    library, machine = compile_kernels(SOURCE, target)
    assert library.form() == FORMS.get(machine.extension, 0)
    assert library.panel_width() == machine.bf16_nr
    random = np.random.default_rng(m + 1000 * n + 1000000 * k)
    a = random.standard_normal((m, k + 3)).astype(ml_dtypes.bfloat16)[:, :k]
    a = np.asarray(a, order=order) if order != "gaps" else np.repeat(a, 2, axis=1)[:, ::2]
    b = random.standard_normal((k, n)).astype(ml_dtypes.bfloat16)
    bias = random.standard_normal(n).astype(np.float32)
    residual = random.standard_normal((m, n + 5)).astype(np.float32)
    out = np.float32 if name != "rounded" else ml_dtypes.bfloat16
    c = np.full((m, n + 5), 77, out)
    strides = [s // 2 for s in a.strides]
    sizes = np.array([m, n, k, *strides, n + 5, 192], np.int64)
    packed = aligned(pack(b, panel_layout(machine.bf16_nr)))
    call(library[name], sizes, a.view(np.uint16), packed.view(np.uint16), c, bias, residual)
    wide = a.astype(np.float64), b.astype(np.float64)
    sums, magnitude = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1])
    if name.startswith("bias"):
        sums, magnitude = sums + bias, magnitude + np.abs(bias)
    if name == "bias_gelu":
        from scipy import special

        sums = sums * special.ndtr(sums)
    if name == "bias_add":
        sums, magnitude = sums + residual[:, :n], magnitude + np.abs(residual[:, :n])
    # Sums in float: the error grows with the sum of the terms' magnitudes, not with its value.
    allowed = 4 * np.finfo(np.float32).eps * (magnitude + 4)
    if name == "rounded":
        allowed = allowed + np.abs(sums) * 2.0**-8
    assert np.all(np.abs(c[:, :n].astype(np.float64) - sums) <= allowed)
    assert np.all(c[:, n:] == 77)


@pytest.mark.parametrize("name", ["plain", "rounded", "bias_gelu", "bias_add"])
@pytest.mark.parametrize("target", runnable_targets(extensions=True))
def test_product(target: str, name: str) -> None:
    for m, n, k in SIZES:
        check(target, name, m, n, k)


@pytest.mark.parametrize("order", ["F", "gaps"])
@pytest.mark.parametrize("target", runnable_targets(extensions=True))
def test_strided_rows_are_copied(target: str, order: str) -> None:
    for m, n, k in [(1, 1, 1), (1, 31, 257), (7, 64, 31), (33, 65, 600), (257, 7, 1100)]:
        check(target, "plain", m, n, k, order)


@pytest.mark.parametrize("target", runnable_targets(extensions=True))
def test_not_a_number_stays_in_its_row(target: str) -> None:
    library, machine = compile_kernels(SOURCE, target)
    assert library.form() >= 0
    a = np.ones((40, 33), ml_dtypes.bfloat16)
    a[2, 32], a[17, 3] = np.nan, np.inf
    b = np.ones((33, 40), ml_dtypes.bfloat16)
    c = np.empty((40, 40), np.float32)
    sizes = np.array([40, 40, 33, 33, 1, 40, 192], np.int64)
    packed = aligned(pack(b, panel_layout(machine.bf16_nr)))
    call(library["plain"], sizes, a.view(np.uint16), packed.view(np.uint16), c, None, None)
    assert np.all(np.isnan(c[2]))
    assert np.all(np.isposinf(c[17]))
    rest = np.delete(np.arange(40), [2, 17])
    assert np.all(c[rest] == 33)


@pytest.mark.parametrize("target", runnable_targets(extensions=True))
def test_rounding_is_to_nearest_even(target: str) -> None:
    library, _ = compile_kernels(SOURCE, target)
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 100003, dtype=np.uint32)
    bits[:4] = 0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7FFFFFFF  # ties, overflow, not a number
    x = bits.view(np.float32)
    tiny = np.abs(x) < np.finfo(np.float32).tiny
    x = np.where(tiny, np.float32(0), x)
    found = np.empty(x.size, ml_dtypes.bfloat16)
    call(library["round_all"], found.view(np.uint16), x, x.size)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    np.testing.assert_array_equal(found[~np.isnan(x)], expected[~np.isnan(x)])
