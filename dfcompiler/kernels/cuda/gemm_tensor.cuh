// Product on the tensor cores, sums in float: bf16 and fp16 by mma.sync m16n8k16, floats rounded to
// tf32 by m16n8k8 where a program asks for it.
//
//                ┌────── BN ──────┐        STAGES tiles of A and B are in flight (cp.async): while
//                │ B tile, BK = 32│        one is multiplied, STAGES - 1 are on their way
//                ├────┬────┬──────┤
//     ┌────┐     │warp│warp│ …    │        a warp: WM × WN of c, (WM / 16) · (WN / 8) mma tiles;
//  BM │ A  │     ├────┼────┼──────┤        A by ldmatrix; B by ldmatrix, transposed where n is
//     └────┘     │    │    │      │        contiguous
//      BK        └────┴────┴──────┘
//
//   shape   BM × BN   warp      threads  stages  shared bytes  flops a byte of L2
//   wide    128 × 256 64 × 64   256      4       98,304        85 (planned only, 16-bit types)
//   large   128 × 128 64 × 32   256      4       65,536        64
//   medium   64 × 64  32 × 32   128      5       40,960        32
//   few      32 × 128 32 × 32   128      6       61,440        26 (weights are read once: M ≤ 32)
//
// A row of a tile is 64 bytes of k, BK = 32 elements of 16 bits or 16 floats: with floats, shared
// bytes are the same and flops a byte half as many. ldmatrix moves 16-byte chunks of a row, two of
// them an mma's k, so that only B with contiguous n needs other code for floats.
//
// Large: 64 sums and 24 operand registers a thread, so that two blocks of 256 fit the 65,536
// registers of a multiprocessor; their shared memory, 128 KB, fits an A100's 163 KB too. At 64
// flops a byte an L2 of 5 TB/s would feed 320 TFLOP/s, an A100's rate; an H200's needs the reuse
// between neighbouring tiles in the order of `TilePlace::of_block` and wgmma.
// Wide: 128 sums a thread, one block a multiprocessor; warps read a third less for a multiply-add.
// As compiled: 120 to 128 registers a thread, 243 to 252 wide, 98 to 100 for elements, no spills.
#pragma once

#include "gemm_finish.cuh"
#include "gemm_pipeline.cuh"

namespace dfc::cuda {

template <class T, int BM_, int BN_, int WM_, int WN_, int STAGES_>
struct TensorShape {
  static constexpr bool exact = false;
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
  static constexpr int ROW_BYTES = 64, BK = ROW_BYTES / sizeof(T);
  static constexpr int THREADS = BM / WM * (BN / WN) * 32;
  static constexpr int SHARED_BYTES = STAGES * ROW_BYTES * (BM + BN);
  // Blocks that are to fit the registers of a multiprocessor.
  static constexpr int RESIDENT = (WM * WN > 2048 ? 256 : 512) / THREADS;
};

template <class T>
using TensorWide = TensorShape<T, 128, 256, 64, 64, 4>;
template <class T>
using TensorLarge = TensorShape<T, 128, 128, 64, 32, 4>;
template <class T>
using TensorMedium = TensorShape<T, 64, 64, 32, 32, 5>;
template <class T>
using TensorFew = TensorShape<T, 32, 128, 32, 32, 6>;

// c += a·b for one mma tile; floats are rounded to tf32 first.
template <class T>
__device__ inline void multiply_tile(float (&c)[4], const unsigned (&a)[4],
                                     const unsigned (&b)[2]) {
  if constexpr (sizeof(T) == 4) {
    unsigned x[4], y[2];
    for (int i = 0; i < 4; ++i) x[i] = to_tf32(__uint_as_float(a[i]));
    for (int i = 0; i < 2; ++i) y[i] = to_tf32(__uint_as_float(b[i]));
    mma_m16n8k8_tf32(c, x, y);
  } else {
    mma_m16n8k16(c, a, b, T{});
  }
}

// B's fragments of two mma tiles side by side; b[0], b[1] are of the left one.
template <class T, class TileB>
__device__ inline void load_right(unsigned (&both)[4], const T* b, int k, int column) {
  constexpr int CHUNK = TileB::PER_CHUNK;
  const int lane = threadIdx.x % 32;
  if constexpr (TileB::depth_first) {
    const int row = column + lane / 16 * 8 + lane % 8;
    ldmatrix_x4(both, TileB::chunk(b, row, k + lane / 8 % 2 * CHUNK));
  } else if constexpr (sizeof(T) == 2) {
    ldmatrix_x4_trans(both, TileB::chunk(b, k + lane % 16, column + lane / 16 * 8));
  } else {
    // ldmatrix transposes elements of 16 bits only.
    for (int i = 0; i < 4; ++i) {
      const int n = column + i / 2 * 8 + lane / 4, row = k + i % 2 * 4 + lane % 4;
      both[i] = __float_as_uint(TileB::chunk(b, row, n)[n % CHUNK]);
    }
  }
}

// sums += A·B over one step of k; row and column are the warp's first, of the tiles.
template <class S, class T, class TileA, class TileB>
__device__ inline void tensor_step(float (&sums)[S::WM / 16][S::WN / 8][4], const T* a, const T* b,
                                   int row, int column) {
  constexpr int CHUNK = TileA::PER_CHUNK;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < S::BK; k += 2 * CHUNK) {
    unsigned left[S::WM / 16][4];
#pragma unroll
    for (int i = 0; i < S::WM / 16; ++i)
      ldmatrix_x4(left[i], TileA::chunk(a, row + 16 * i + lane % 16, k + lane / 16 * CHUNK));
#pragma unroll
    for (int j = 0; j < S::WN / 16; ++j) {
      unsigned both[4];
      load_right<T, TileB>(both, b, k, column + 16 * j);
      const unsigned first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
#pragma unroll
      for (int i = 0; i < S::WM / 16; ++i) {
        multiply_tile<T>(sums[i][2 * j], left[i], first);
        multiply_tile<T>(sums[i][2 * j + 1], left[i], second);
      }
    }
  }
}

template <class S, class T, Along along_a, Along along_b, Activation activation, Residual residual>
__global__ void __launch_bounds__(S::THREADS, S::RESIDENT)
    gemm_tensor(Awaited<Gemm<T>> given, Split split) {
  using TileA = OperandTile<T, along_a, S::BM, S::BK, S::THREADS>;
  using TileB = OperandTile<T, along_b, S::BN, S::BK, S::THREADS>;
  static_assert(TileA::depth_first);
  const TilePlace at = TilePlace::of_block<S::BM, S::BN>(given.early(), split.parts);
  OperandPipeline<S, T, TileA, TileB, S::STAGES - 1> pipeline(
      given.early(), split, at, reinterpret_cast<T*>(dynamic_shared()));
  pipeline.start_weights();
  const Gemm<T>& p = given.wait();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / (S::BN / S::WN) * S::WM, column = warp % (S::BN / S::WN) * S::WN;
  float sums[S::WM / 16][S::WN / 8][4] = {};
  pipeline.each_step([&](const T* a, const T* b) {
    tensor_step<S, T, TileA, TileB>(sums, a, b, row, column);
  });
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
  finish_tile<S::BM, S::BN, S::THREADS, activation, residual>(p, split, at);
}

}  // namespace dfc::cuda
