// What our launcher asks of a CUTLASS kernel: its problem shape, its stride tuples, the epilogue.
//
// Defined in cutlass_tiles.cuh, which includes CUTLASS; nothing else of ours knows it. A host
// emulator replaces that file by loops over these very arguments.
#pragma once

#include <array>

#include "gemm.h"

namespace dfc::cuda {

// Tiles of c. Clusters of `CLUSTER` neighbours along m share what they read of B.
struct CutlassWide {
  static constexpr int BM = 128, BN = 256, BK = 64, CLUSTER = 2;
};
struct CutlassNarrow {
  static constexpr int BM = 64, BN = 128, BK = 64, CLUSTER = 1;
};

using CutlassStride = std::array<long, 3>;

// d = residual(activation(alpha · a·b + bias)), in CUTLASS's terms.
//
// Attributes:
//   shape: M, N, K, L (the batch).
//   a, b, c, d: [M, K, L], [N, K, L], [M, N, L], [M, N, L]; strides count elements of these axes.
//     c is what the residual reads, nullptr without one; it may be d.
//   bias: [N], or nullptr.
template <class T>
struct CutlassProblem {
  std::array<int, 4> shape;
  const T* a;
  CutlassStride a_stride;
  const T* b;
  CutlassStride b_stride;
  const T* c;
  CutlassStride c_stride;
  T* d;
  CutlassStride d_stride;
  const T* bias;
  float alpha;
  Activation activation;
  Residual residual;
};

// Enqueues the product on a device of so many multiprocessors; k of a and columns of c and d are
// contiguous, and of b n (`along` is WIDTH) or k (DEPTH).
template <class T, class Tile, unsigned along>
cudaError_t cutlass_tiles(cudaStream_t stream, const CutlassProblem<T>& problem,
                          int multiprocessors);

}  // namespace dfc::cuda
