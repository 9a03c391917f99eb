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

// A kernel of teams of 4 and 32 lanes, 4 and 2 of them to a block, and of a block of 96 threads.
#define ROWS(name, T, ...)                                                                   \
  template <int THREADS, int PACKS>                                                          \
  __global__ void name##_kernel(T* o, const T* x, const T* gamma, const T* beta, long count, \
                                long n) {                                                    \
    const long number = long(blockIdx.x) * blockDim.y + threadIdx.y;                         \
    if (number >= count) return;                                                             \
    x += number * n, o += number * n;                                                        \
    const auto row = rows::row_of<THREADS, PACKS>(x);                                        \
    __VA_ARGS__;                                                                             \
  }                                                                                          \
  extern "C" int name(T* o, const T* x, const T* gamma, const T* beta, long count, long n,   \
                      long threads) {                                                        \
    const auto kernel = threads == 4    ? name##_kernel<4, 3>                                \
                        : threads == 32 ? name##_kernel<32, 4>                               \
                                        : name##_kernel<96, 1>;                              \
    const long together = threads == 4 ? 4 : threads == 32 ? 2 : 1;                          \
    return dfc::cuda::launch(kernel, dim3((count + together - 1) / together),                \
                             dim3(threads, together), 0, nullptr, o, x, gamma, beta, count, n); \
  }
#define ALL(suffix, T)                                                                       \
  ROWS(layer_norm_##suffix, T, layer_norm_row(o, row, gamma, beta, n, 1e-5))                 \
  ROWS(rms_norm_##suffix, T, rms_norm_row(o, row, gamma, n, 1e-5))                           \
  ROWS(softmax_##suffix, T, softmax_row(o, row, n))                                          \
  ROWS(fused_##suffix, T,                                                                    \
       const auto made = [&](auto& v, int64_t first, auto count) {                           \
         accumulator<T> p[rows::PACK<T>], q[rows::PACK<T>];                                  \
         rows::load_pack(p, x + first, count);                                               \
         rows::load_pack(q, beta + first, count);                                            \
         for (int e = 0; e < rows::PACK<T>; ++e) v[e] = p[e] + q[e];                         \
       };                                                                                    \
       const bool aligned = rows::are_aligned(x, beta);                                      \
       const auto sums = rows::row_of<THREADS, PACKS>(aligned, made);                        \
       layer_norm_row(o, sums, gamma, static_cast<const T*>(nullptr), n, 1e-5))              \
  __global__ void cumsum_##suffix##_kernel(T* o, const T* x, long n) {                       \
    cumsum_row(o + blockIdx.x * n, 1, x + blockIdx.x * n, 1, n);                             \
  }                                                                                          \
  extern "C" int cumsum_##suffix(T* o, const T* x, long count, long n, long threads) {       \
    return dfc::cuda::launch(cumsum_##suffix##_kernel, dim3(count), dim3(threads), 0, nullptr, \
                             o, x, n);                                                       \
  }
ALL(f32, float)
ALL(f64, double)
ALL(bf16, __nv_bfloat16)
ALL(f16, __half)

#define REDUCTION(name, Op, T, A, O)                                                         \
  template <int THREADS>                                                                     \
  __global__ void name##_kernel(O* o, const T* x, long count, long n) {                      \
    const long number = long(blockIdx.x) * blockDim.y + threadIdx.y;                         \
    if (number >= count) return;                                                             \
    RowReduction<Op, A, THREADS> total;                                                      \
    total.add(x + number * n, n);                                                            \
    const A value = total.value();                                                           \
    if (threadIdx.x == 0) o[number] = O(value);                                              \
  }                                                                                          \
  extern "C" int name(O* o, const T* x, long count, long n, long threads) {                  \
    return dfc::cuda::launch(threads == 8 ? name##_kernel<8> : name##_kernel<128>,           \
                             dim3(threads == 8 ? (count + 1) / 2 : count),                   \
                             dim3(threads, threads == 8 ? 2 : 1), 0, nullptr, o, x, count, n); \
  }
REDUCTION(sum_f32, Sum, float, float, float)
REDUCTION(sum_bf16, Sum, __nv_bfloat16, float, float)
REDUCTION(sum_i64, Sum, int64_t, int64_t, int64_t)
REDUCTION(max_f32, Maximum, float, float, float)
REDUCTION(min_i32, Minimum, int, int, int)
REDUCTION(any_bool, Maximum, bool, uint8_t, bool)

// Rows lie side by side, `count` of them, or one after the other.
template <int THREADS, class T>
__global__ void argmax_kernel(int64_t* o, const T* x, long n, bool beside) {
  x += beside ? blockIdx.x : blockIdx.x * n;
  const int64_t position = argmax_row<THREADS>(x, beside ? gridDim.x : 1, n);
  if (threadIdx.x == 0) o[blockIdx.x] = position;
}
#define ARGMAX(name, T)                                                                      \
  extern "C" int name(int64_t* o, const T* x, long count, long n, long threads, long beside) { \
    return dfc::cuda::launch(threads == 8 ? argmax_kernel<8, T> : argmax_kernel<96, T>,      \
                             dim3(count), dim3(threads), 0, nullptr, o, x, n, beside != 0);  \
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
        for threads in (4, 32, 96):
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
    kernels().call("softmax_f32", x, x, None, None, 2, 1031, 96)
    assert_close(x, expected)


def test_variance_of_a_large_mean() -> None:
    x = normal(2, 384)
    x += 32
    o = kernels().array(x.shape, x.dtype)
    kernels().call("layer_norm_f32", o, x, None, None, 2, 384, 32)
    ones, zeros = np.ones(384), np.zeros(384)
    assert_close(o, layer_norm(x.astype(np.float64), ones, zeros).astype(np.float32))


def test_exceptional_values_of_softmax() -> None:
    x = kernels().copy(np.zeros((4, 65), np.float32))
    x[0] = -np.inf
    x[1, :64] = -np.inf
    x[2, 3] = np.inf
    x[3, 64] = np.nan
    o = kernels().array(x.shape, x.dtype)
    kernels().call("softmax_f32", o, x, None, None, 4, 65, 32)
    np.testing.assert_array_equal(np.isnan(o), softmax(x.astype(np.float64)) != softmax(x))
    np.testing.assert_array_equal(o[1], softmax(x[1]))


def test_strided_softmax() -> None:
    x = normal(37, 48)
    o = kernels().array(x.shape, x.dtype)
    kernels().call("softmax_columns", o, x, 37, 48)
    assert_close(o, softmax(x.astype(np.float64).T).T.astype(np.float32))


@pytest.mark.parametrize("threads", [8, 128])
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
    kernels().call("max_f32", o, x, 3, 100, 128)
    np.testing.assert_array_equal(o, x.max(1))


@pytest.mark.parametrize("threads", [8, 96])
@pytest.mark.parametrize("beside", [False, True])
def test_argmax_is_the_first_greatest(threads: int, beside: bool) -> None:
    rng = np.random.default_rng(1)
    for n in (1, 40, 333):
        x = rng.integers(-3, 3, (n, 4)).astype(np.float32)
        x[:, 1] = -np.inf
        x[n // 2 :, 2] = np.nan
        truth = rng.random((n, 4)) < 0.1
        for name, columns in (("argmax_f32", x), ("argmax_bool", truth)):
            o, rows = kernels().array((4,), np.int64), columns if beside else columns.T
            kernels().call(name, o, kernels().copy(rows), 4, n, threads, beside)
            np.testing.assert_array_equal(o, np.argmax(columns, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_sums(dtype: str) -> None:
    for n in (1, 65, 300):
        x = normal(2, n, dtype=DTYPES[dtype])
        o = kernels().array(x.shape, x.dtype)
        kernels().call(f"cumsum_{dtype}", o, x, 2, n, 64)
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
