// Which kernel of gemm_wgmma_tiles.cuh a product takes, its maps for TMA, and its launch.
//
//   rows of c   operands                                                     kernel
//   ≤ 64        any, without a plan                                          gemm.cuh's
//   more        k of A, and k or n of B contiguous, addresses and other      WIDE or LARGE (Turns),
//               strides multiples of 16 bytes (why_no_map)                   planned or predicted
//   any         others                                                       gemm.cuh's
//
// Cycles are a prediction: rounds of units, each its stages; and STORE_CYCLES behind each unit of
// Wide, but only once for Turns, where the other group multiplies in the meantime.
//
// Asked for with {"matmul": "wgmma"}: it has run in emulation only, on no device (0077).
#pragma once

#include "gemm.cuh"
#include "gemm_wgmma.h"
#include "gemm_wgmma_tiles.cuh"

namespace dfc::cuda {

// What storing the sums of a tile takes: about 10 instructions for each of 128 sums of 8 warps.
inline constexpr long STORE_CYCLES = 3000;

// A as [batch, M, K] in boxes of 128 × 64.
template <class T>
TensorBoxes boxes_of_a(const Gemm<T>& p) {
  const bool shared = p.a_batch == 0 || p.batch == 1;
  const long row = p.a_row * static_cast<long>(sizeof(T));
  return {p.a,
          3,
          {p.K, p.M, shared ? 1 : p.batch},
          {row, shared ? row * p.M : p.a_batch * static_cast<long>(sizeof(T))},
          {64, 128, 1}};
}

// B as [batch, N, K] in boxes of BN × 64, or as [batch, K, N] in boxes of 64 × 64.
template <class T>
TensorBoxes boxes_of_b(const Gemm<T>& p, Along along_b, int columns) {
  const bool shared = p.b_batch == 0 || p.batch == 1, depth = along_b == Along::depth;
  const long outer = depth ? p.N : p.K;
  const long row = (depth ? p.b_col : p.b_row) * static_cast<long>(sizeof(T));
  return {p.b,
          3,
          {depth ? p.K : p.N, outer, shared ? 1 : p.batch},
          {row, shared ? row * outer : p.b_batch * static_cast<long>(sizeof(T))},
          {64, depth ? columns : 64, 1}};
}

template <class S, class T>
long tiles_of(const Gemm<T>& p) {
  return p.batch * ceil_div(p.M, S::BM) * ceil_div(p.N, S::BN);
}

// How k is split, so that tiles become about `wanted` units.
template <class S, class T>
Split wgmma_split(const Gemm<T>& p, long wanted) {
  return split_of(p, tiles_of<S>(p), wanted, S::BK);
}

template <class S, class T>
long predicted_cycles(const Gemm<T>& p, long multiprocessors) {
  const Split split = wgmma_split<S>(p, multiprocessors);
  const long rounds = ceil_div(tiles_of<S>(p) * split.parts, multiprocessors);
  const long stores = (S::SHARING == 1 ? 1 : rounds) + (split.parts > 1 ? 1 : 0);
  return rounds * ceil_div(split.depth, S::BK) * S::STEP_CYCLES + stores * STORE_CYCLES;
}

template <class S, class T, Activation activation, Residual residual,
          unsigned kernels = ALL_KERNELS>
cudaError_t run_wgmma(cudaStream_t stream, const Gemm<T>& p, long multiprocessors, long wanted,
                      Along along_b) {
  Split split = wgmma_split<S>(p, wanted);
  // A group counts what it has of a tile by itself.
  if (tiles_of<S>(p) * S::SHARING > WORKSPACE_COUNTERS) split = {1, p.K};
  cudaError_t error = give_room(stream, &split);
  if (error != cudaSuccess) return error;
  const long units = tiles_of<S>(p) * split.parts;
  if (units > 0x7fffffffL) return cudaErrorInvalidConfiguration;
  TensorMap a, b;
  error = make_tensor_map<T>(&a, boxes_of_a(p));
  if (error == cudaSuccess) error = make_tensor_map<T>(&b, boxes_of_b(p, along_b, S::BN));
  if (error != cudaSuccess) return error;
  auto start = [&](auto kernel) {
    const long blocks = units < multiprocessors ? units : multiprocessors;
    return launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(S::THREADS), S::SHARED_BYTES,
                  stream, a, b, p, split, static_cast<unsigned>(units), has_chunks(p));
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

// Whether TMA can copy both operands.
template <class T>
bool fits_maps(const Gemm<T>& p, Along along_b) {
  if (along_b == Along::elements || !chunks_of_a(p)) return false;
  return why_no_map(boxes_of_a(p), sizeof(T)) == nullptr &&
         why_no_map(boxes_of_b(p, along_b, WgmmaWide::BN), sizeof(T)) == nullptr;
}

template <class T, Activation activation, Residual residual, unsigned kernels>
cudaError_t gemm_wgmma(cudaStream_t stream, Gemm<T> p) {
  static_assert(sizeof(T) == 2);
  const Along along_b = along_of_b(p);
  if (p.batch < 1 || p.M < 1 || p.N < 1) return cudaSuccess;
  const bool planned = (p.plan.tile & (LARGE | WIDE)) != 0;
  if ((planned || p.M > 64) && fits_maps(p, along_b)) {
    long multiprocessors = 0;
    const cudaError_t error = count_multiprocessors(&multiprocessors);
    if (error != cudaSuccess) return error;
    const bool wide = predicted_cycles<WgmmaWide>(p, multiprocessors) <=
                      predicted_cycles<WgmmaTurns>(p, multiprocessors);
    const unsigned tile = planned ? p.plan.tile : wide ? WIDE : LARGE;
    if constexpr ((kernels & WIDE) != 0) {
      if (tile == WIDE)
        return run_wgmma<WgmmaWide, T, activation, residual, kernels>(
            stream, p, multiprocessors, multiprocessors, along_b);
    }
    if constexpr ((kernels & LARGE) != 0) {
      if (tile == LARGE)
        return run_wgmma<WgmmaTurns, T, activation, residual, kernels>(
            stream, p, multiprocessors, multiprocessors, along_b);
    }
    return missing_kernel();
  }
  // With a plan the program calls `gemm` for few rows itself: what is left TMA cannot copy.
  constexpr unsigned aligned = (kernels & MEDIUM) != 0 ? kernels & ~WIDE : 0u;
  constexpr unsigned others = aligned | (kernels & (WIDTH | DEPTH | ELEMENTS));
  return gemm<T, activation, residual, Floats::exact, others>(stream, p);
}

}  // namespace dfc::cuda
