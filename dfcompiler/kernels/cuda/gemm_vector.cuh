// Product of at most 8 rows with a matrix (decode): bound by reading B once, 16 bytes a thread.
//
//   B along depth (a row of memory is a column)      B along width
//
//   a warp: 2 columns, lane by lane along k          8 threads: 128 bytes of a row; 32 rows at once
//   ┌──────────────────────────┐                        ┌──8──┐
//   │ lane 0 │ lane 1 │ … │ 31 │ ─▶ next 32 chunks    32 │     │  the next 32 rows, …
//   └──────────────────────────┘                         └─────┘
//   sums meet by shuffles                            sums meet by shuffles, then in shared memory
//
// Bytes: K·N elements of B once, and A again for each block, from the L1 and L2. A thread has
// UNROLL loads of 16 bytes under way: 256 threads of 4 are 16 KB a block, and with four blocks 64 KB
// a multiprocessor, more than the 25 KB that 4.8 TB/s · 0.7 µs / 132 ask for.
// As compiled: 32 to 48 registers a thread for one row, 54 to 128 for eight, no spills.
#pragma once

#include "gemm_finish.cuh"
#include "ptx.h"

namespace dfc::cuda {

inline constexpr int VECTOR_ROWS = 8, VECTOR_THREADS = 256, VECTOR_UNROLL = 4;
// Columns of a warp, B along depth; chunks of a row of a block, B along width.
inline constexpr int VECTOR_COLUMNS = 2, VECTOR_CHUNKS = 8;

template <class T>
__device__ inline float element_of(const uint4& chunk, int i) {
  return to_float(reinterpret_cast<const T*>(&chunk)[i]);
}

template <int ROWS, class T, Activation activation, Residual residual>
__global__ void __launch_bounds__(VECTOR_THREADS) gemm_vector_depth(Gemm<T> p, Split split) {
  constexpr int PER_CHUNK = 16 / sizeof(T), WARPS = VECTOR_THREADS / 32;
  const long groups = (p.N + VECTOR_COLUMNS * WARPS - 1) / (VECTOR_COLUMNS * WARPS);
  const int lane = threadIdx.x % 32;
  const TilePlace at{0, (blockIdx.x % groups * WARPS + threadIdx.x / 32) * VECTOR_COLUMNS,
                     static_cast<long>(blockIdx.x / groups), 0, 0};
  const T* a = p.a + at.batch * p.a_batch;
  const T* b = p.b + at.batch * p.b_batch + at.column * p.b_col;
  float sums[ROWS][VECTOR_COLUMNS] = {};
  if (at.column < p.N) {
    // The last column may have no neighbour: it is then read twice, and put once.
    const long neighbour = at.column + 1 < p.N ? p.b_col : 0;
#pragma unroll(VECTOR_UNROLL / VECTOR_COLUMNS)
    for (long k = lane * PER_CHUNK; k < p.K; k += 32 * PER_CHUNK) {
      const uint4 right[VECTOR_COLUMNS] = {load_once_16(b + k), load_once_16(b + neighbour + k)};
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= p.M) break;
        const uint4 left = *reinterpret_cast<const uint4*>(a + r * p.a_row + k);
#pragma unroll
        for (int i = 0; i < PER_CHUNK; ++i) {
          const float x = element_of<T>(left, i);
          sums[r][0] = fmaf(x, element_of<T>(right[0], i), sums[r][0]);
          sums[r][1] = fmaf(x, element_of<T>(right[1], i), sums[r][1]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    for (int step = 16; step > 0; step /= 2) {
      sums[r][0] += __shfl_xor_sync(0xffffffffu, sums[r][0], step);
      sums[r][1] += __shfl_xor_sync(0xffffffffu, sums[r][1], step);
    }
    if (lane == 0)
      put_pair<activation, residual>(p, split, at, r, at.column, sums[r][0], sums[r][1]);
  }
}

template <int ROWS, class T, Activation activation, Residual residual>
__global__ void __launch_bounds__(VECTOR_THREADS) gemm_vector_width(Gemm<T> p, Split split) {
  constexpr int PER_CHUNK = 16 / sizeof(T), COLUMNS = VECTOR_CHUNKS * PER_CHUNK;
  constexpr int WARPS = VECTOR_THREADS / 32, SLICES = VECTOR_THREADS / VECTOR_CHUNKS;
  __shared__ float shared[WARPS][ROWS][COLUMNS];
  const long groups = (p.N + COLUMNS - 1) / COLUMNS;
  const long rest = blockIdx.x / groups;
  const long group = blockIdx.x % groups;
  const TilePlace at{0, group * COLUMNS, rest / split.parts, rest % split.parts,
                     rest / split.parts * groups + group};
  const int chunk = threadIdx.x % VECTOR_CHUNKS, slice = threadIdx.x / VECTOR_CHUNKS;
  const long column = at.column + chunk * PER_CHUNK, k0 = at.part * split.depth;
  const long end = k0 + split.depth < p.K ? k0 + split.depth : p.K;
  const T* a = p.a + at.batch * p.a_batch;
  const T* b = p.b + at.batch * p.b_batch + column;
  float sums[ROWS][PER_CHUNK] = {};
  if (column < p.N) {
#pragma unroll VECTOR_UNROLL
    for (long k = k0 + slice; k < end; k += SLICES) {
      const uint4 right = load_once_16(b + k * p.b_row);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= p.M) break;
        const float x = to_float(a[r * p.a_row + k * p.a_col]);
#pragma unroll
        for (int i = 0; i < PER_CHUNK; ++i)
          sums[r][i] = fmaf(x, element_of<T>(right, i), sums[r][i]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int i = 0; i < PER_CHUNK; ++i) {
      for (int step = VECTOR_CHUNKS; step < 32; step *= 2)
        sums[r][i] += __shfl_xor_sync(0xffffffffu, sums[r][i], step);
      if (threadIdx.x % 32 < VECTOR_CHUNKS)
        shared[threadIdx.x / 32][r][chunk * PER_CHUNK + i] = sums[r][i];
    }
  }
  __syncthreads();
  for (int place = threadIdx.x; place < ROWS * COLUMNS; place += VECTOR_THREADS) {
    const int r = place / COLUMNS, i = place % COLUMNS;
    float sum = 0.0f;
    for (int warp = 0; warp < WARPS; ++warp) sum += shared[warp][r][i];
    put<activation, residual>(p, split, at, r, at.column + i, sum);
  }
  finish_tile<ROWS, COLUMNS, VECTOR_THREADS, activation, residual>(p, split, at);
}

}  // namespace dfc::cuda
