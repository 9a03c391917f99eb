// Product of at most 8 rows with a matrix whose rows lie along n (decode): bound by reading B once.
//
//   8 threads: 128 bytes of a row; 32 rows at once
//                        ┌──8──┐
//                     32 │     │  the next 32 rows, …
//                        └─────┘
//   sums meet by shuffles, then in shared memory; k is split among blocks
//
// Bytes: K·N elements of B once, and A again for each block, from the L1 and L2. A thread has
// UNROLL loads of 16 bytes under way: 256 threads of 4 are 16 KB a block, and with four blocks 64 KB
// a multiprocessor, more than the 25 KB that 4.8 TB/s · 0.7 µs / 132 ask for.
// Before the kernel in front has ended, B that is a weight comes to the L2: 32 KB a block, for 256
// blocks what memory gives in 2 µs.
// As compiled: 32 to 48 registers a thread for one row, 54 to 128 for eight, no spills.
//
// A weight of a product of few rows is stored along k instead: `gemm_vector_depth.cuh`.
#pragma once

#include "gemm_finish.cuh"
#include "gemm_vector_depth.cuh"
#include "ptx.h"

namespace dfc::cuda {

inline constexpr int VECTOR_UNROLL = 4;
inline constexpr int VECTOR_CHUNKS = 8;  // of a row, for a block
// Chunks that a thread brings to the L2 before its predecessor has ended.
inline constexpr int VECTOR_PREFETCHED = 8;

template <int ROWS, class T, Activation activation, Residual residual>
__global__ void __launch_bounds__(VECTOR_THREADS) gemm_vector_width(Awaited<Gemm<T>> given,
                                                                    Split split) {
  constexpr int PER_CHUNK = 16 / sizeof(T), COLUMNS = VECTOR_CHUNKS * PER_CHUNK;
  constexpr int WARPS = VECTOR_THREADS / 32, SLICES = VECTOR_THREADS / VECTOR_CHUNKS;
  const Gemm<T>& p = given.early();
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
  if (BEGINS_EARLY && p.b_is_weight && column < p.N) {
#pragma unroll
    for (int i = 0; i < VECTOR_PREFETCHED; ++i) {
      const long k = k0 + slice + i * SLICES;
      if (k < end) prefetch_l2(b + k * p.b_row);
    }
  }
  given.wait();
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
