// bf16 and fp16 product of sm_90a: wgmma from shared memory, two warp groups, tiles by cp.async.
//
//               ┌───────── BN ─────────┐          STAGES tiles of 64 steps of k: one is multiplied,
//               │ B tile, 64 steps of k│          one may still be, STAGES - 2 are on their way
//               └──────────────────────┘
//     ┌────┐    ┌──────────────────────┐
//  64 │ A  │    │ warp group 0         │          a warp group: 64 × BN sums, BN / 128 products of
//     ├────┤    ├──────────────────────┤          64 × 128 × 16 for each 16 steps of k
//  64 │    │    │ warp group 1         │
//     └────┘    └──────────────────────┘
//
//   shape   BM × BN    stages  shared bytes  blocks a multiprocessor  flops a byte of L2
//   wide    128 × 256  4       197,632       1                        85
//   narrow  128 × 128  3        99,328       2                        64
//
// 124 to 127 registers a thread narrow, 240 to 252 wide, none spilled.
//
// Shared memory bounds it: for a wide tile and 64 steps of k, 2 groups · 8 products · (2 + 4) KB =
// 96 KB are read by wgmma and 48 KB written, 1,150 cycles at 128 bytes each, for 1,024 cycles of
// the tensor cores; products of 64 × 256 × 16 would read 80 KB.
//
// Asked for with {"matmul": "wgmma"}: it has run in emulation only, on no device.
#pragma once

#include "gemm.cuh"
#include "gemm_pipeline.cuh"
#include "gemm_wgmma.h"
#include "tma.h"
#include "wgmma.h"

namespace dfc::cuda {

template <int BN_, int STAGES_>
struct WgmmaShape {
  static constexpr int BM = 128, BN = BN_, BK = 64, STAGES = STAGES_, THREADS = 256;
  static constexpr int RESIDENT = BN > 128 ? 1 : 2;
  static constexpr int SHARED_BYTES = STAGES * BK * (BM + BN) * 2 + 1024;
};

using WgmmaWide = WgmmaShape<256, 4>;
using WgmmaNarrow = WgmmaShape<128, 3>;

// B of one step: [BN][64] with k contiguous, or BN / 64 times [64][64] with n contiguous.
template <class S, class T, Along along>
struct RightTile : OperandTile<T, along, S::BN, S::BK, S::THREADS> {};

template <class S, class T>
struct RightTile<S, T, Along::width> {
  using Square = OperandTile<T, Along::width, 64, S::BK, S::THREADS>;
  static constexpr int ELEMENTS = S::BN * S::BK;

  __device__ static void fill(T* tile, const T* first, long along_width, long along_depth,
                              long width, long depth) {
    for (int n = 0; n < S::BN; n += 64)
      Square::fill(tile + n * S::BK, first + n * along_width, along_width, along_depth, width - n,
                   depth);
  }
};

// sums += A·B over one step of k; `a` is the first row of the warp group.
template <class S, class T, Along along>
__device__ inline void wgmma_step(float (&sums)[S::BN / 128][64], const T* a, const T* b) {
  constexpr bool transposed = along == Along::width;
  const Descriptor left = make_descriptor(a, 16, 1024);
#pragma unroll
  for (int k = 0; k < S::BK; k += 16) {
#pragma unroll
    for (int j = 0; j < S::BN / 128; ++j) {
      const Descriptor right = make_descriptor(b + j * 128 * S::BK, transposed ? 8192 : 16, 1024);
      wgmma_m64k16<transposed>(sums[j], advanced(left, 2 * k),
                               advanced(right, transposed ? 128 * k : 2 * k), T{}, true);
    }
  }
}

template <class S, class T, Along along_b, Activation activation, Residual residual>
__global__ void __launch_bounds__(S::THREADS, S::RESIDENT) wgmma_tiles(Gemm<T> p, Split split) {
  using TileA = OperandTile<T, Along::depth, S::BM, S::BK, S::THREADS>;
  using TileB = RightTile<S, T, along_b>;
  const TilePlace at = TilePlace::of_block<S::BM, S::BN>(p, split.parts);
  // One stage less than the others': a product may still read the step before.
  const OperandPipeline<S, T, TileA, TileB, S::STAGES - 2> pipeline(
      p, split, at, reinterpret_cast<T*>(aligned_1024(dynamic_shared())));
  pipeline.start();
  const int group = threadIdx.x / 128;
  float sums[S::BN / 128][64] = {};
  keep_in_place(sums);
  for (int step = 0; step < pipeline.steps(); ++step) {
    pipeline.wait();
    fence_for_copies();
    __syncthreads();
    wgmma_begin();
    wgmma_step<S, T, along_b>(sums, pipeline.a(step) + group * 64 * S::BK, pipeline.b(step));
    wgmma_commit();
    // The stage of two steps back is free: every warp group waited for it before the barrier above.
    pipeline.fill_ahead_of(step);
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  keep_in_place(sums);
  const long row = at.row + group * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
  for (int j = 0; j < S::BN / 128; ++j) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const long column = at.column + 128 * j + 8 * i + threadIdx.x % 4 * 2;
      const float* four = &sums[j][4 * i];
      put_pair<activation, residual>(p, split, at, row, column, four[0], four[1]);
      put_pair<activation, residual>(p, split, at, row + 8, column, four[2], four[3]);
    }
  }
  finish_tile<S::BM, S::BN, S::THREADS, activation, residual>(p, split, at);
}

template <class S, class T, Activation activation, Residual residual,
          unsigned kernels = ALL_KERNELS>
cudaError_t run_wgmma(cudaStream_t stream, const Gemm<T>& p, long wanted, Along along_b) {
  const long tiles = p.batch * ceil_div(p.M, S::BM) * ceil_div(p.N, S::BN);
  auto start = [&](void (*kernel)(Gemm<T>, Split)) {
    return run<T>(kernel, tiles, S::THREADS, S::SHARED_BYTES, stream, p,
                  split_of(p, tiles, wanted));
  };
  if constexpr ((kernels & WIDTH) != 0) {
    if (along_b == Along::width)
      return start(wgmma_tiles<S, T, Along::width, activation, residual>);
  }
  if constexpr ((kernels & DEPTH) != 0) {
    if (along_b == Along::depth)
      return start(wgmma_tiles<S, T, Along::depth, activation, residual>);
  }
  return missing_kernel();
}

template <class T, Activation activation, Residual residual, unsigned kernels>
cudaError_t gemm_wgmma(cudaStream_t stream, Gemm<T> p) {
  static_assert(sizeof(T) == 2);
  const Along along_b = along_of_b(p);
  if (p.batch < 1 || p.M < 1 || p.N < 1) return cudaSuccess;
  const bool planned = (p.plan.tile & (LARGE | WIDE)) != 0;
  if ((planned || p.M > 64) && along_b != Along::elements && chunks_of_a(p)) {
    long multiprocessors = 0;
    const cudaError_t error = count_multiprocessors(&multiprocessors);
    if (error != cudaSuccess) return error;
    const long wide = p.batch * ceil_div(p.M, WgmmaWide::BM) * ceil_div(p.N, WgmmaWide::BN);
    const unsigned usual = wide >= multiprocessors ? WIDE : LARGE;
    const unsigned tile = planned ? p.plan.tile : usual;
    if constexpr ((kernels & WIDE) != 0) {
      if (tile == WIDE)
        return run_wgmma<WgmmaWide, T, activation, residual, kernels>(stream, p, multiprocessors,
                                                                      along_b);
    }
    if constexpr ((kernels & LARGE) != 0) {
      if (tile == LARGE)
        return run_wgmma<WgmmaNarrow, T, activation, residual, kernels>(
            stream, p, 2 * multiprocessors, along_b);
    }
    return missing_kernel();
  }
  // With a plan the program calls `gemm` for few rows itself: what is left is not aligned.
  constexpr unsigned aligned = (kernels & MEDIUM) != 0 ? kernels & ~WIDE : 0u;
  return gemm<T, activation, residual, Floats::exact, aligned | (kernels & (WIDTH | DEPTH | ELEMENTS))>(
      stream, p);
}

}  // namespace dfc::cuda
