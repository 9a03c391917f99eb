// Product of at most 8 rows with a matrix whose columns lie along k (decode): bound by reading B.
//
//   B: a row of memory is a column                 of a warp: columns j and j + 1, or j and j + N
//   ┌────────┬────────┬───┬─────────┐              where the one gates the other
//   │ lane 0 │ lane 1 │ … │ lane 31 │ ─▶ next 32 chunks of 16 bytes
//   └────────┴────────┴───┴─────────┘
//   on their way: a ring of AHEAD steps in registers; one is multiplied, and its place is asked for
//   again. Sums meet by shuffles: no shared memory, no barrier, k is not split.
//
// A normalization of the rows of A by their root mean square is part of the product:
//
//   Σ (x·g·r)·b = r · Σ (x·g)·b      r = 1 / √(Σ x² / K + ε), and a warp that walks along all of k
//                                    has Σ x² beside its sums
//
// Bytes: K·N elements of B once; A and g again for each warp, from the L1. In flight: 256 threads
// with AHEAD · 2 loads of 16 bytes are 48 KB a block; 4.8 TB/s · 0.7 µs / 132 ask for 25 KB a
// multiprocessor, which has one block where N is 2048, and else two.
// As compiled: 86 to 128 registers a thread, no spills; for one row 12 loads of B precede the first
// multiply-add.
#pragma once

#include <cstdint>
#include <cstring>

#include "block_fold.h"
#include "gemm_finish.cuh"
#include "ptx.h"

namespace dfc::cuda {

inline constexpr int VECTOR_ROWS = 8, VECTOR_THREADS = 256;
// Steps of k of which B is on its way: with more rows, registers end earlier.
template <int ROWS>
inline constexpr int VECTOR_AHEAD = ROWS == 1 ? 6 : 4;

template <class T>
__device__ inline float element_of(const uint4& chunk, int i) {
  return to_float(reinterpret_cast<const T*>(&chunk)[i]);
}

// 16 bytes at any address: callers may hand inputs in at those that are no multiple of 16.
template <class T>
__device__ inline uint4 load_chunk(const T* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % 16 == 0)
    return *reinterpret_cast<const uint4*>(from);
  T parts[16 / sizeof(T)];
  for (int i = 0; i < int(16 / sizeof(T)); ++i) parts[i] = from[i];
  uint4 chunk;
  memcpy(&chunk, parts, sizeof chunk);
  return chunk;
}

// Columns of c that a warp has.
template <Residual residual>
inline constexpr int VECTOR_COLUMNS = residual == Residual::gate ? 1 : 2;

template <int ROWS, class T, Norm norm, Activation activation, Residual residual>
__global__ void __launch_bounds__(VECTOR_THREADS, 2)
    gemm_vector_depth(Awaited<Gemm<T>> given, Split) {
  constexpr int PER_CHUNK = 16 / sizeof(T), WARPS = VECTOR_THREADS / 32, STEP = 32 * PER_CHUNK;
  constexpr int COLUMNS = VECTOR_COLUMNS<residual>, AHEAD = VECTOR_AHEAD<ROWS>;
  const Gemm<T>& p = given.early();
  const long groups = (p.N + COLUMNS * WARPS - 1) / (COLUMNS * WARPS);
  const long column = (blockIdx.x % groups * WARPS + threadIdx.x / 32) * COLUMNS;
  const long batch = blockIdx.x / groups;
  // Weights are on their way before the kernel in front has ended.
  const bool early = BEGINS_EARLY && p.b_is_weight && column < p.N;
  if (!early) given.wait();
  if (column >= p.N) return;
  const int lane = threadIdx.x % 32, depth = static_cast<int>(p.K);
  const T* a = p.a + batch * p.a_batch;
  const T* b = p.b + batch * p.b_batch + column * p.b_col;
  // The last column may have no neighbour: it is then read twice, and put once.
  const bool both = COLUMNS == 1 || column + 1 < p.N;
  const T* second = b + (COLUMNS == 1 ? p.N * p.b_col : both ? p.b_col : 0);
  uint4 ring[AHEAD][2] = {};
  const auto ask = [&](int place, int k) {
    if (k >= depth) return;
    ring[place][0] = load_once_16(b + k);
    ring[place][1] = load_once_16(second + k);
  };
  float sums[ROWS][2] = {}, squares[ROWS] = {};
  const auto multiply = [&](const uint4 (&right)[2], int k) {
    uint4 gain{};
    if constexpr (norm != Norm::none) gain = load_chunk(p.gain + k);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (ROWS > 1 && r >= p.M) break;
      const uint4 left = load_chunk(a + r * p.a_row + k);
#pragma unroll
      for (int i = 0; i < PER_CHUNK; ++i) {
        float x = element_of<T>(left, i);
        if constexpr (norm != Norm::none) {
          squares[r] = fmaf(x, x, squares[r]);
          x *= element_of<T>(gain, i);
        }
        sums[r][0] = fmaf(x, element_of<T>(right[0], i), sums[r][0]);
        sums[r][1] = fmaf(x, element_of<T>(right[1], i), sums[r][1]);
      }
    }
  };
#pragma unroll
  for (int s = 0; s < AHEAD; ++s) ask(s, lane * PER_CHUNK + s * STEP);
  if (early) given.wait();
  for (int first = lane * PER_CHUNK; first < depth; first += AHEAD * STEP) {
#pragma unroll
    for (int s = 0; s < AHEAD; ++s) {
      const int k = first + s * STEP;
      if (k >= depth) break;
      const uint4 right[2] = {ring[s][0], ring[s][1]};
      ask(s, k + AHEAD * STEP);
      multiply(right, k);
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    if (ROWS > 1 && r >= p.M) break;
    float left = rows::warp_fold(sums[r][0], rows::Add{});
    float right = rows::warp_fold(sums[r][1], rows::Add{});
    if constexpr (norm != Norm::none) {
      const float mean = rows::warp_fold(squares[r], rows::Add{}) / static_cast<float>(p.K);
      const float factor = 1.0f / sqrtf(mean + p.epsilon);
      left *= factor, right *= factor;
    }
    if (lane != 0) continue;
    T* to = p.c + batch * p.c_batch + r * p.c_row + column;
    if constexpr (COLUMNS == 1) {
      to[0] = gated<activation>(p, left, right);
    } else {
      to[0] = finished<activation, residual>(p, batch, r, column, left);
      if (both) to[1] = finished<activation, residual>(p, batch, r, column + 1, right);
    }
  }
}

}  // namespace dfc::cuda
