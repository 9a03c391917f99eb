"""The product by warp groups, in emulation against float64."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_emulation import Library, build, toolkit
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

SOURCE = """#include "cuda/gemm_wgmma.cuh"
using namespace dfc::cuda;
#define PRODUCT(name, T)                                                                  \\
  extern "C" int name(const T* a, const T* b, T* c, long m, long n, long k, long width) { \\
    Gemm<T> p{1, m, n, k, a, k, 1, m * k, b, width ? n : 1, width ? 1 : k, k * n, c, n, m * n}; \\
    return gemm_wgmma<T, Activation::none, Residual::none>(nullptr, p);                   \\
  }
PRODUCT(bf16, __nv_bfloat16)
PRODUCT(f16, __half)
"""
DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16}


@cache
def kernels() -> Library:
    return build(SOURCE)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("extents", [(130, 136, 72), (65, 264, 320)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product(dtype: str, extents: tuple[int, int, int], order: str) -> None:
    rows, columns, depth = extents
    random, library = np.random.default_rng(sum(extents)), kernels()
    a = (random.standard_normal((rows, depth)) / np.sqrt(depth)).astype(DTYPES[dtype])
    b = random.standard_normal((depth, columns)).astype(DTYPES[dtype])
    c = library.array((rows, columns), DTYPES[dtype])
    stored = library.copy(np.ascontiguousarray(b if order == "C" else b.T))
    library.call(dtype, library.copy(a), stored, c, rows, columns, depth, int(order == "C"))
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert_close(c, expected.astype(DTYPES[dtype]))
