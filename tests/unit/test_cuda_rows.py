"""Row functions of GPUs in emulation, against float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from tests.cuda_emulation import Library, build, toolkit
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

SOURCE = r"""
#include "cuda/launch.h"
#include "cuda/reduction.h"
#include "cuda/rotary.h"
#include "cuda/rows.h"
using namespace dfc;

#define ROWS(name, T, ...)                                                                   \
  __global__ void name##_kernel(T* o, const T* x, const T* gamma, const T* beta, long n) {   \
    x += blockIdx.x * n, o += blockIdx.x * n;                                                \
    __VA_ARGS__;                                                                             \
  }                                                                                          \
  extern "C" int name(T* o, const T* x, const T* gamma, const T* beta, long rows, long n,    \
                      long threads) {                                                        \
    return dfc::cuda::launch(name##_kernel, dim3(rows), dim3(threads), 0, nullptr, o, x,     \
                             gamma, beta, n);                                                \
  }
#define ALL(suffix, T)                                                                       \
  ROWS(layer_norm_##suffix, T, layer_norm_row(o, x, gamma, beta, n, 1e-5))                   \
  ROWS(rms_norm_##suffix, T, rms_norm_row(o, x, gamma, n, 1e-5))                             \
  ROWS(softmax_##suffix, T, softmax_row(o, x, n))                                            \
  ROWS(cumsum_##suffix, T, cumsum_row(o, 1, x, 1, n))                                        \
  ROWS(fused_##suffix, T, layer_norm_row(o, [&](auto& v, int64_t first, int count) {         \
         accumulator<T> p[rows::PACK<T>], q[rows::PACK<T>];                                  \
         rows::load_pack(p, x + first, count);                                               \
         rows::load_pack(q, beta + first, count);                                            \
         for (int e = 0; e < rows::PACK<T>; ++e) v[e] = p[e] + q[e];                         \
       }, gamma, static_cast<const T*>(nullptr), n, 1e-5))
ALL(f32, float)
ALL(f64, double)
ALL(bf16, __nv_bfloat16)
ALL(f16, __half)

#define REDUCTION(name, Op, T, A, O)                                                         \
  __global__ void name##_kernel(O* o, const T* x, long n) {                                  \
    RowReduction<Op, A> total;                                                               \
    total.add(x + blockIdx.x * n, n);                                                        \
    const A value = total.value();                                                           \
    if (threadIdx.x == 0) o[blockIdx.x] = O(value);                                          \
  }                                                                                          \
  extern "C" int name(O* o, const T* x, long rows, long n, long threads) {                   \
    return dfc::cuda::launch(name##_kernel, dim3(rows), dim3(threads), 0, nullptr, o, x, n); \
  }
REDUCTION(sum_f32, Sum, float, float, float)
REDUCTION(sum_bf16, Sum, __nv_bfloat16, float, float)
REDUCTION(sum_i64, Sum, int64_t, int64_t, int64_t)
REDUCTION(max_f32, Maximum, float, float, float)
REDUCTION(min_i32, Minimum, int, int, int)
REDUCTION(any_bool, Maximum, bool, uint8_t, bool)

template <class T>
__global__ void argmax_kernel(int64_t* o, const T* x, long n) {
  const int64_t position = argmax_row(x + blockIdx.x, gridDim.x, n);
  if (threadIdx.x == 0) o[blockIdx.x] = position;
}
#define ARGMAX(name, T)                                                                      \
  extern "C" int name(int64_t* o, const T* x, long rows, long n, long threads) {             \
    return dfc::cuda::launch(argmax_kernel<T>, dim3(rows), dim3(threads), 0, nullptr, o, x, n); \
  }
ARGMAX(argmax_f32, float)
ARGMAX(argmax_bool, bool)

__global__ void softmax_strided_kernel(float* o, const float* x, long n) {
  softmax_strided(o + threadIdx.x, blockDim.x, x + threadIdx.x, blockDim.x, n);
}
extern "C" int softmax_columns(float* o, const float* x, long n, long columns) {
  return dfc::cuda::launch(softmax_strided_kernel, dim3(1), dim3(columns), 0, nullptr, o, x, n);
}

template <bool INTERLEAVED>
__global__ void rotary_kernel(float* o, const float* x, const float* c, const float* s, long half) {
  o += blockIdx.x * 2 * half, x += blockIdx.x * 2 * half;
  if (INTERLEAVED) {
    rotary_interleaved(o, x, c, s, half, threadIdx.x);
  } else if (threadIdx.x * 4 < half) {
    rotary_halves(o, x, c, s, half, threadIdx.x);
  }
}
extern "C" int rotary(float* o, const float* x, const float* c, const float* s, long rows,
                      long half, long interleaved) {
  return dfc::cuda::launch(interleaved ? rotary_kernel<true> : rotary_kernel<false>, dim3(rows),
                           dim3((half + 1) / 2), 0, nullptr, o, x, c, s, half);
}
"""
DTYPES = {
    "f32": np.float32,
    "f64": np.float64,
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
}
# Short, odd, aligned, more than a block of 32 threads holds in registers.
LENGTHS = [1, 7, 31, 257, 384, 1024, 1031]
Reference = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@cache
def kernels() -> Library:
    """The row functions as kernels, one block a row."""
    return build(SOURCE)


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    y = torch.nn.functional.layer_norm(
        torch.from_numpy(x), x.shape[-1:], torch.from_numpy(gamma), torch.from_numpy(beta), 1e-5
    )
    return y.numpy()


def rms_norm(x: np.ndarray, gamma: np.ndarray, _: np.ndarray) -> np.ndarray:
    y = torch.nn.functional.rms_norm(
        torch.from_numpy(x), x.shape[-1:], torch.from_numpy(gamma), 1e-5
    )
    return y.numpy()


def softmax(x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(x), -1).numpy()


def fused(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return layer_norm(x + beta, gamma, np.zeros_like(beta))


REFERENCES: dict[str, Reference] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "softmax": softmax,
    "fused": fused,
}


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return kernels().copy(rng.normal(size=shape).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", REFERENCES)
def test_rows(kind: str, dtype: str) -> None:
    for length in LENGTHS:
        for threads in (32, 96):
            x = normal(3, length, dtype=DTYPES[dtype])
            gamma, beta = normal(length, dtype=DTYPES[dtype]), normal(length, dtype=DTYPES[dtype])
            o = kernels().array(x.shape, x.dtype)
            kernels().call(f"{kind}_{dtype}", o, x, gamma, beta, 3, length, threads)
            wide = (value.astype(np.float64) for value in (x, gamma, beta))
            expected = REFERENCES[kind](*wide).astype(x.dtype)
            assert_close(o, expected, f"{kind} of {length} with {threads} threads")


def test_a_row_replaces_itself() -> None:
    x = normal(2, 1031)
    expected = softmax(x.astype(np.float64)).astype(np.float32)
    kernels().call("softmax_f32", x, x, None, None, 2, 1031, 64)
    assert_close(x, expected)


def test_variance_of_a_large_mean() -> None:
    x = normal(2, 384)
    x += 32
    o = kernels().array(x.shape, x.dtype)
    kernels().call("layer_norm_f32", o, x, None, None, 2, 384, 64)
    ones, zeros = np.ones(384), np.zeros(384)
    assert_close(o, layer_norm(x.astype(np.float64), ones, zeros).astype(np.float32))


def test_exceptional_values_of_softmax() -> None:
    x = kernels().copy(np.zeros((4, 65), np.float32))
    x[0] = -np.inf
    x[1, :64] = -np.inf
    x[2, 3] = np.inf
    x[3, 64] = np.nan
    o = kernels().array(x.shape, x.dtype)
    kernels().call("softmax_f32", o, x, None, None, 4, 65, 64)
    np.testing.assert_array_equal(np.isnan(o), softmax(x.astype(np.float64)) != softmax(x))
    np.testing.assert_array_equal(o[1], softmax(x[1]))


def test_strided_softmax() -> None:
    x = normal(37, 48)
    o = kernels().array(x.shape, x.dtype)
    kernels().call("softmax_columns", o, x, 37, 48)
    assert_close(o, softmax(x.astype(np.float64).T).T.astype(np.float32))


@pytest.mark.parametrize("threads", [32, 128])
def test_reductions(threads: int) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 33, 515):
        x = normal(3, n)
        for name, fold in (("sum_f32", np.sum), ("max_f32", np.max)):
            o = kernels().array((3,), np.float32)
            kernels().call(name, o, x, 3, n, threads)
            assert_close(o, fold(x.astype(np.float64), 1).astype(np.float32), name)
        halves = normal(3, n, dtype=ml_dtypes.bfloat16)
        o = kernels().array((3,), np.float32)
        kernels().call("sum_bf16", o, halves, 3, n, threads)
        assert_close(o, halves.astype(np.float64).sum(1).astype(np.float32), "sum_bf16")
        for name, fold, dtype in (("sum_i64", np.sum, np.int64), ("min_i32", np.min, np.int32)):
            whole = kernels().copy(rng.integers(-(2**31), 2**31 - 1, (3, n)).astype(dtype))
            o = kernels().array((3,), dtype)
            kernels().call(name, o, whole, 3, n, threads)
            np.testing.assert_array_equal(o, fold(whole, axis=1))
        truth = kernels().copy(rng.random((3, n)) < 1 / n)
        o = kernels().array((3,), np.bool_)
        kernels().call("any_bool", o, truth, 3, n, threads)
        np.testing.assert_array_equal(o, truth.any(1))


def test_a_maximum_keeps_nan() -> None:
    x = normal(3, 100)
    x[1, 77] = np.nan
    o = kernels().array((3,), np.float32)
    kernels().call("max_f32", o, x, 3, 100, 64)
    np.testing.assert_array_equal(o, x.max(1))


@pytest.mark.parametrize("threads", [32, 96])
def test_argmax_is_the_first_greatest(threads: int) -> None:
    rng = np.random.default_rng(1)
    for n in (1, 40, 333):
        x = kernels().copy(rng.integers(-3, 3, (n, 4)).astype(np.float32))
        x[:, 1] = -np.inf
        x[n // 2 :, 2] = np.nan
        o = kernels().array((4,), np.int64)
        kernels().call("argmax_f32", o, x, 4, n, threads)
        np.testing.assert_array_equal(o, np.argmax(x, 0))
        truth = kernels().copy(rng.random((n, 4)) < 0.1)
        kernels().call("argmax_bool", o, truth, 4, n, threads)
        np.testing.assert_array_equal(o, np.argmax(truth, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_sums(dtype: str) -> None:
    for n in (1, 65, 300):
        x = normal(2, n, dtype=DTYPES[dtype])
        o = kernels().array(x.shape, x.dtype)
        kernels().call(f"cumsum_{dtype}", o, x, None, None, 2, n, 64)
        assert_close(o, x.astype(np.float64).cumsum(1).astype(x.dtype))


@pytest.mark.parametrize("half", [1, 16, 17, 32])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary(interleaved: int, half: int) -> None:
    x, c, s = normal(3, 2 * half), normal(half), normal(half)
    o = kernels().array(x.shape, x.dtype)
    kernels().call("rotary", o, x, c, s, 3, half, interleaved)
    pairs = (x[:, 0::2], x[:, 1::2]) if interleaved else (x[:, :half], x[:, half:])
    a, b = (part.astype(np.float64) for part in pairs)
    axis = 2 if interleaved else 1
    expected = np.stack((a * c - b * s, b * c + a * s), axis).reshape(3, 2 * half)
    assert_close(o, expected.astype(np.float32))
