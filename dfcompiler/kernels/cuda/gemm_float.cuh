// fp32 product on the ordinary units: every product and sum is a float, nothing is rounded to tf32.
//
//            ┌─ BN: 8·TN columns a warp ─┐       a thread: TM rows, TN columns
//            │ B tile, BK deep           │         rows     y + 4·i
//        BK  └───────────────────────────┘         columns  4·x + 32·j … + 3   (B along width)
//      ┌────┐┌───────────────────────────┐                  x + 8·j            (B along depth)
//   BM │ A  ││ warp│ warp│ …  sums       │       lane = 8·y + x
//      └────┘└───────────────────────────┘
//
// Four steps of k are read at once, as 16 bytes: TM reads of A (4 different rows in a warp, the
// others the same: one wavefront), TN reads of B (8 different: one wavefront), for 4·TM·TN FMAs. At
// 8 × 8 these are 16 wavefronts for 256 FMA instructions of a warp, a quarter of what the shared
// memory of one multiprocessor can serve to four schedulers.
// Bytes from the L2 for a tile and a step: 4·BK·(BM + BN), for 2·BK·BM·BN flops: 32 flops a byte at
// 128 × 128, 16 at 64 × 64; the 67 TFLOP/s of an H200 want 2.1 TB/s at 32, which its L2 has.
// As compiled: 72 to 128 registers a thread at 64 × 64, 208 to 254 at 128 × 128, where one block of
// 8 warps fits a multiprocessor and 64 independent sums a thread hide the FMA's latency; no spills.
// Shared memory of a block: STAGES·BK·(BM + BN) floats, 48 KB at 128 × 128 and 32 KB at 64 × 64.
#pragma once

#include "gemm_finish.cuh"
#include "gemm_pipeline.cuh"

namespace dfc::cuda {

template <int BM_, int BN_, int TM_, int TN_>
struct FloatShape {
  static constexpr bool exact = true;
  static constexpr int BM = BM_, BN = BN_, BK = 16, TM = TM_, TN = TN_, STAGES = 3;
  static constexpr int THREADS = BM / TM * (BN / TN);
  static constexpr int WARP_M = 4 * TM, WARP_N = 8 * TN;
  static constexpr int SHARED_BYTES = STAGES * BK * (BM + BN) * static_cast<int>(sizeof(float));
};

using FloatLarge = FloatShape<128, 128, 8, 8>;
using FloatSmall = FloatShape<64, 64, 4, 4>;

// Column j of a thread, from the first of its warp.
template <class S, Along along>
__device__ inline int float_column(int x, int j) {
  return along == Along::width ? 4 * x + j / 4 * 32 + j % 4 : x + 8 * j;
}

// sums += A·B over one step of k.
template <class S, class TileA, class TileB>
__device__ inline void float_step(float (&sums)[S::TM][S::TN], const float* a, const float* b,
                                  int row, int column) {
#pragma unroll
  for (int k = 0; k < S::BK; k += 4) {
    float4 left[S::TM];
#pragma unroll
    for (int i = 0; i < S::TM; ++i)
      left[i] = *reinterpret_cast<const float4*>(TileA::chunk(a, row + 4 * i, k));
    if constexpr (TileB::depth_first) {
#pragma unroll
      for (int j = 0; j < S::TN; ++j) {
        const float4 right = *reinterpret_cast<const float4*>(TileB::chunk(b, column + 8 * j, k));
#pragma unroll
        for (int i = 0; i < S::TM; ++i) {
          float sum = fmaf(left[i].x, right.x, sums[i][j]);
          sum = fmaf(left[i].y, right.y, sum);
          sum = fmaf(left[i].z, right.z, sum);
          sums[i][j] = fmaf(left[i].w, right.w, sum);
        }
      }
    } else {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int j = 0; j < S::TN; j += 4) {
          const float4 right =
              *reinterpret_cast<const float4*>(TileB::chunk(b, k + s, column + 8 * j));
#pragma unroll
          for (int i = 0; i < S::TM; ++i) {
            const float4& l = left[i];
            const float x = s == 0 ? l.x : s == 1 ? l.y : s == 2 ? l.z : l.w;
            sums[i][j] = fmaf(x, right.x, sums[i][j]);
            sums[i][j + 1] = fmaf(x, right.y, sums[i][j + 1]);
            sums[i][j + 2] = fmaf(x, right.z, sums[i][j + 2]);
            sums[i][j + 3] = fmaf(x, right.w, sums[i][j + 3]);
          }
        }
      }
    }
  }
}

template <class S, Along along_a, Along along_b, Activation activation, Residual residual>
__global__ void __launch_bounds__(S::THREADS)
    gemm_float(Awaited<Gemm<float>> given, Split split) {
  using TileA = OperandTile<float, along_a, S::BM, S::BK, S::THREADS>;
  using TileB = OperandTile<float, along_b, S::BN, S::BK, S::THREADS>;
  static_assert(TileA::depth_first);
  const TilePlace at = TilePlace::of_block<S::BM, S::BN>(given.early(), split.parts);
  OperandPipeline<S, float, TileA, TileB, S::STAGES - 1> pipeline(
      given.early(), split, at, reinterpret_cast<float*>(dynamic_shared()));
  pipeline.start_weights();
  const Gemm<float>& p = given.wait();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / (S::BN / S::WARP_N) * S::WARP_M + lane / 8;
  const int warp_column = warp % (S::BN / S::WARP_N) * S::WARP_N;
  const int column = warp_column + float_column<S, along_b>(lane % 8, 0);
  float sums[S::TM][S::TN] = {};
  pipeline.each_step([&](const float* a, const float* b) {
    float_step<S, TileA, TileB>(sums, a, b, row, column);
  });
  const long first_column = at.column + warp_column;
#pragma unroll
  for (int i = 0; i < S::TM; ++i) {
#pragma unroll
    for (int j = 0; j < S::TN; j += 2) {
      const long to = at.row + row + 4 * i;
      const long left = first_column + float_column<S, along_b>(lane % 8, j);
      if constexpr (TileB::depth_first) {
        put<activation, residual>(p, split, at, to, left, sums[i][j]);
        put<activation, residual>(p, split, at, to, left + 8, sums[i][j + 1]);
      } else {
        put_pair<activation, residual>(p, split, at, to, left, sums[i][j], sums[i][j + 1]);
      }
    }
  }
  finish_tile<S::BM, S::BN, S::THREADS, activation, residual>(p, split, at);
}

}  // namespace dfc::cuda
