// bf16 and fp16 product on the tensor cores: mma.sync m16n8k16, sums in float.
//
//                ┌────── BN ──────┐            STAGES tiles of A and B are in flight (cp.async): while
//                │ B tile, BK = 32│            one is multiplied, STAGES - 1 are on their way
//                ├────┬────┬──────┤
//     ┌────┐     │warp│warp│ …    │            a warp: WM × WN of c, as (WM / 16) · (WN / 8) mma tiles
//  BM │ A  │     ├────┼────┼──────┤            A by ldmatrix; B by ldmatrix, transposed where n is
//     └────┘     │    │    │      │            contiguous
//      BK        └────┴────┴──────┘
//
//   shape   BM × BN   warp      threads  stages  shared bytes  flops a byte of L2
//   large   128 × 128 64 × 32   256      4       65,536        64
//   medium   64 × 64  32 × 32   128      5       40,960        32
//   few      32 × 128 32 × 32   128      6       61,440        26 (weights are read once: M ≤ 32)
//
// Large: 64 sums and 24 operand registers a thread, so that two blocks of 256 fit the 65,536
// registers of a multiprocessor; their shared memory, 128 KB, fits an A100's 163 KB too. At 64 flops
// a byte an L2 of 5 TB/s would feed 320 TFLOP/s, an A100's rate; for an H200's it needs the reuse
// between neighbouring tiles in the order of `TilePlace::of_block` and wgmma.
#pragma once

#include "gemm_finish.cuh"
#include "gemm_tile.cuh"

namespace dfc::cuda {

template <int BM_, int BN_, int WM_, int WN_, int STAGES_>
struct TensorShape {
  static constexpr int BM = BM_, BN = BN_, BK = 32, WM = WM_, WN = WN_, STAGES = STAGES_;
  static constexpr int THREADS = BM / WM * (BN / WN) * 32;
  static constexpr int SHARED_BYTES = STAGES * BK * (BM + BN) * 2;
  // Blocks that are to fit the registers of a multiprocessor.
  static constexpr int RESIDENT = 512 / THREADS;
};

using TensorLarge = TensorShape<128, 128, 64, 32, 4>;
using TensorMedium = TensorShape<64, 64, 32, 32, 5>;
using TensorFew = TensorShape<32, 128, 32, 32, 6>;

// sums += A·B over one step of k; row and column are the warp's first, of the tiles.
template <class S, class T, class TileA, class TileB>
__device__ inline void tensor_step(float (&sums)[S::WM / 16][S::WN / 8][4], const T* a, const T* b,
                                   int row, int column) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < S::BK; k += 16) {
    unsigned left[S::WM / 16][4];
#pragma unroll
    for (int i = 0; i < S::WM / 16; ++i)
      ldmatrix_x4(left[i], TileA::chunk(a, row + 16 * i + lane % 16, k + lane / 16 * 8));
#pragma unroll
    for (int j = 0; j < S::WN / 16; ++j) {
      unsigned both[4];
      if constexpr (TileB::depth_first)
        ldmatrix_x4(both, TileB::chunk(b, column + 16 * j + lane / 16 * 8 + lane % 8,
                                       k + lane / 8 % 2 * 8));
      else
        ldmatrix_x4_trans(both,
                          TileB::chunk(b, k + lane % 16, column + 16 * j + lane / 16 * 8));
      const unsigned first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
#pragma unroll
      for (int i = 0; i < S::WM / 16; ++i) {
        mma_m16n8k16(sums[i][2 * j], left[i], first, T{});
        mma_m16n8k16(sums[i][2 * j + 1], left[i], second, T{});
      }
    }
  }
}

template <class S, class T, Along along_a, Along along_b, Activation activation, Residual residual>
__global__ void __launch_bounds__(S::THREADS, S::RESIDENT) gemm_tensor(Gemm<T> p, Split split) {
  using TileA = OperandTile<T, along_a, S::BM, S::BK, S::THREADS>;
  using TileB = OperandTile<T, along_b, S::BN, S::BK, S::THREADS>;
  static_assert(TileA::depth_first);
  T* shared = reinterpret_cast<T*>(dynamic_shared());
  const TilePlace at = TilePlace::of_block<S::BM, S::BN>(p, split.parts);
  const long k0 = at.part * split.depth;
  const long depth = k0 + split.depth < p.K ? split.depth : p.K - k0;
  const int steps = static_cast<int>((depth + S::BK - 1) / S::BK);
  const T* a = p.a + at.batch * p.a_batch + at.row * p.a_row + k0 * p.a_col;
  const T* b = p.b + at.batch * p.b_batch + at.column * p.b_col + k0 * p.b_row;
  auto fill = [&](int step) {
    T* tile = shared + step % S::STAGES * (TileA::ELEMENTS + TileB::ELEMENTS);
    const long k = static_cast<long>(step) * S::BK;
    TileA::fill(tile, a + k * p.a_col, p.a_row, p.a_col, p.M - at.row, depth - k);
    TileB::fill(tile + TileA::ELEMENTS, b + k * p.b_row, p.b_col, p.b_row, p.N - at.column,
                depth - k);
  };
  for (int step = 0; step < S::STAGES - 1; ++step) {
    if (step < steps) fill(step);
    cp_async_commit();
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / (S::BN / S::WN) * S::WM, column = warp % (S::BN / S::WN) * S::WN;
  float sums[S::WM / 16][S::WN / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<S::STAGES - 2>();
    __syncthreads();
    if (step + S::STAGES - 1 < steps) fill(step + S::STAGES - 1);
    cp_async_commit();
    const T* tile = shared + step % S::STAGES * (TileA::ELEMENTS + TileB::ELEMENTS);
    tensor_step<S, T, TileA, TileB>(sums, tile, tile + TileA::ELEMENTS, row, column);
  }
#pragma unroll
  for (int i = 0; i < S::WM / 16; ++i) {
#pragma unroll
    for (int j = 0; j < S::WN / 8; ++j) {
      const long to = at.row + row + 16 * i + lane / 4;
      const long left = at.column + column + 8 * j + lane % 4 * 2;
      put_pair<activation, residual>(p, split, at, to, left, sums[i][j][0], sums[i][j][1]);
      put_pair<activation, residual>(p, split, at, to + 8, left, sums[i][j][2], sums[i][j][3]);
    }
  }
}

}  // namespace dfc::cuda
