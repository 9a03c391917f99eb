// Products by CUTLASS: which of them it takes, with which tile, and how it is asked for them.
//
//   ours, row-major                          CUTLASS's strides of (M, N, K, L)
//   a[M, K], k contiguous                    (M, K, L): (a_row, 1, a_batch)
//   b[K, N], n contiguous                    (N, K, L): (1, b_row, b_batch)
//   b[K, N], k contiguous                    (N, K, L): (b_col, 1, b_batch)
//   c[M, N], and the residual                (M, N, L): (c_row, 1, c_batch)
//
// Copies are TMA's: base addresses and strides are multiples of 16 bytes, strides less than 2^40
// bytes and, for an axis of more than one element, not 0. The extents of contiguous axes are
// multiples of 16 bytes, which CUTLASS asks for.
//
// A plan names the tile: WIDE, or MEDIUM for the narrow one. Without a plan it is the one with the
// least time, where a narrow tile, a quarter of a wide one, is taken to need a third of its time:
// it reads three times as much for each product.
#pragma once

#include "cutlass_tiles.h"
#include "gemm.cuh"
#include "gemm_cutlass.h"

namespace dfc::cuda {

// Rows up to which a tile of CUTLASS would multiply mostly zeros.
inline constexpr long CUTLASS_FEW_ROWS = 64;

template <class T>
bool is_tma_matrix(const T* first, long rows, long row_stride, long batch, long batch_stride) {
  constexpr long least_outside = (1L << 40) / static_cast<long>(sizeof(T));
  return is_aligned(first, row_stride, batch_stride) && (rows == 1 || row_stride > 0) &&
         (batch == 1 || batch_stride > 0) && row_stride < least_outside &&
         batch_stride < least_outside;
}

template <class T, Residual residual>
bool fits_cutlass(const Gemm<T>& p, Along along_b) {
  // CUTLASS counts extents, up to a tile beyond them, in 32 bits with a sign.
  constexpr long per_chunk = 16 / sizeof(T), most = 0x7fffff00L;
  if (p.M <= CUTLASS_FEW_ROWS || along_b == Along::elements || p.a_col != 1) return false;
  if (p.K < 1 || p.K % per_chunk != 0 || p.N % per_chunk != 0) return false;
  if (p.M > most || p.N > most || p.K > most || p.batch > most) return false;
  const bool width = along_b == Along::width;
  const long b_rows = width ? p.K : p.N, b_stride = width ? p.b_row : p.b_col;
  if constexpr (residual != Residual::none) {
    if (!is_tma_matrix(p.residual, p.M, p.residual_row, p.batch, p.residual_batch)) return false;
  }
  return is_tma_matrix(p.a, p.M, p.a_row, p.batch, p.a_batch) &&
         is_tma_matrix(p.b, b_rows, b_stride, p.batch, p.b_batch) &&
         is_tma_matrix(p.c, p.M, p.c_row, p.batch, p.c_batch);
}

// How often the busiest multiprocessor computes a tile.
template <class Tile, class T>
long waves_of(const Gemm<T>& p, long multiprocessors) {
  return ceil_div(p.batch * ceil_div(p.M, Tile::BM) * ceil_div(p.N, Tile::BN), multiprocessors);
}

template <class T>
CutlassProblem<T> cutlass_problem(const Gemm<T>& p, Along along_b, Activation activation,
                                  Residual residual) {
  const bool width = along_b == Along::width;
  const CutlassStride b_stride = {width ? 1 : p.b_col, width ? p.b_row : 1, p.b_batch};
  return {{static_cast<int>(p.M), static_cast<int>(p.N), static_cast<int>(p.K),
           static_cast<int>(p.batch)},
          p.a,
          {p.a_row, 1, p.a_batch},
          p.b,
          b_stride,
          residual == Residual::none ? nullptr : p.residual,
          {p.residual_row, 1, p.residual_batch},
          p.c,
          {p.c_row, 1, p.c_batch},
          p.bias,
          p.scale,
          activation,
          residual};
}

template <class Tile, class T, unsigned kernels>
cudaError_t run_cutlass(cudaStream_t stream, const CutlassProblem<T>& problem,
                        long multiprocessors, Along along_b) {
  const int count = static_cast<int>(multiprocessors);
  if constexpr ((kernels & WIDTH) != 0) {
    if (along_b == Along::width) return cutlass_tiles<T, Tile, WIDTH>(stream, problem, count);
  }
  if constexpr ((kernels & DEPTH) != 0) {
    if (along_b == Along::depth) return cutlass_tiles<T, Tile, DEPTH>(stream, problem, count);
  }
  return missing_kernel();
}

template <class T, Activation activation, Residual residual, unsigned tiles, unsigned kernels>
cudaError_t gemm_cutlass(cudaStream_t stream, Gemm<T> p) {
  static_assert(sizeof(T) == 2);
  if (p.batch < 1 || p.M < 1 || p.N < 1) return cudaSuccess;
  const Along along_b = along_of_b(p);
  const unsigned planned = p.plan.tile;
  p.plan = {};  // of CUTLASS's tiles; those of `gemm` have other ones
  if (!fits_cutlass<T, residual>(p, along_b))
    return gemm<T, activation, residual, Floats::exact, kernels>(stream, p);
  long multiprocessors = 0;
  const cudaError_t error = count_multiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const auto problem = cutlass_problem(p, along_b, activation, residual);
  const bool cheaper = 3 * waves_of<CutlassWide>(p, multiprocessors) <=
                       waves_of<CutlassNarrow>(p, multiprocessors);
  const bool either = tiles == (CUTLASS_WIDE | CUTLASS_NARROW);
  const bool wide = either ? planned == WIDE || (planned == 0 && cheaper) : tiles == CUTLASS_WIDE;
  if constexpr ((tiles & CUTLASS_WIDE) != 0) {
    if (wide)
      return run_cutlass<CutlassWide, T, kernels>(stream, problem, multiprocessors, along_b);
  }
  if constexpr ((tiles & CUTLASS_NARROW) != 0)
    return run_cutlass<CutlassNarrow, T, kernels>(stream, problem, multiprocessors, along_b);
  return missing_kernel();
}

}  // namespace dfc::cuda
