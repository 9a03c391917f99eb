// The matrix product's kernels and which of them a product takes.
//
//   rows of c        B (and A) aligned                                       otherwise
//   M ≤ 8            matrix-vector: B is read once, 16 bytes a thread        elements
//   with a plan      its tile                                                elements
//   M ≤ 32           tensor cores 32 × 128, k split (16-bit types)           elements
//   more             128 × 128 where that fills the multiprocessors, else 64 × 64, k split
//
// "Aligned": k of A contiguous, k or n of B contiguous, and base addresses and the other strides
// multiples of 16 bytes. "Elements" is the 64 × 64 tile filled one element at a time: any strides,
// slower by what the loads cost.
//
// A plan says into how many parts k is split; without one k is split among blocks while tiles of c
// leave multiprocessors without work. A part has at least SPLIT_DEPTH steps of k, and the partial
// sums fit the workspace.
#pragma once

#include <cstdint>
#include <type_traits>

#include "check.h"
#include "gemm.h"
#include "gemm_finish.cuh"
#include "gemm_float.cuh"
#include "gemm_tensor.cuh"
#include "gemm_vector.cuh"
#include "launch.h"
#include "workspace.h"

namespace dfc::cuda {

// Least k of a part, and the depth that parts are a multiple of.
inline constexpr long SPLIT_DEPTH = 128, SPLIT_STEP = 32;

template <class T>
bool is_aligned(const T* first, long stride, long batch_stride) {
  constexpr long per_chunk = 16 / sizeof(T);
  return reinterpret_cast<std::uintptr_t>(first) % 16 == 0 && stride % per_chunk == 0 &&
         batch_stride % per_chunk == 0;
}

// How A and B of a product can be copied.
template <class T>
bool chunks_of_a(const Gemm<T>& p) {
  return (p.a_col == 1 || p.K == 1) && is_aligned(p.a, p.a_row, p.a_batch);
}

template <class T>
Along along_of_b(const Gemm<T>& p) {
  if (p.b_col == 1 && is_aligned(p.b, p.b_row, p.b_batch)) return Along::width;
  if (p.b_row == 1 && is_aligned(p.b, p.b_col, p.b_batch)) return Along::depth;
  return Along::elements;
}

inline long ceil_div(long value, long divisor) { return (value + divisor - 1) / divisor; }

inline cudaError_t count_multiprocessors(long* count) {
  int device = 0, found = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device);
  *count = found;
  return error;
}

// Into how many parts k is split: as planned, else so that `tiles` become about `wanted` blocks. A
// part is a multiple of `step` deep.
template <class T>
Split split_of(const Gemm<T>& p, long tiles, long wanted, long step = SPLIT_STEP) {
  const long bytes = p.batch * p.M * p.N * static_cast<long>(sizeof(float));
  long parts = p.plan.parts > 0 ? p.plan.parts : wanted / (tiles < 1 ? 1 : tiles);
  const long deep = p.K / SPLIT_DEPTH;
  const long room = static_cast<long>(WORKSPACE_BYTES) / (bytes < 1 ? 1 : bytes);
  if (parts > deep) parts = deep;
  if (parts > room) parts = room;
  if (parts < 2 || tiles > WORKSPACE_COUNTERS) return {1, p.K};
  const long depth = ceil_div(ceil_div(p.K, parts), step) * step;
  return {ceil_div(p.K, depth), depth};
}

// Room for the partial sums of a split, if k is split.
inline cudaError_t give_room(cudaStream_t stream, Split* split) {
  if (split->parts < 2) return cudaSuccess;
  void* block = nullptr;
  const cudaError_t error = workspace_of(stream, &block);
  if (error != cudaSuccess) return error;
  split->partial = static_cast<float*>(block);
  split->done = counters_of(block);
  return cudaSuccess;
}

// Launches `kernel` for `tiles` tiles, with room for partial sums where k is split.
template <class T>
cudaError_t run(GemmKernel<T> kernel, long tiles, int threads, int shared_bytes,
                cudaStream_t stream, const Gemm<T>& p, Split split) {
  const cudaError_t error = give_room(stream, &split);
  if (error != cudaSuccess) return error;
  const long blocks = tiles * split.parts;
  if (blocks > 0x7fffffffL) return cudaErrorInvalidConfiguration;
  return launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), shared_bytes, stream,
                p, split);
}

template <class S, class T, Along along_a, Along along_b, Activation activation, Residual residual>
constexpr auto tile_kernel() {
  if constexpr (S::exact)
    return gemm_float<S, along_a, along_b, activation, residual>;
  else
    return gemm_tensor<S, T, along_a, along_b, activation, residual>;
}

inline cudaError_t missing_kernel() {
  explain_failure("a product has strides or rows that its program was not compiled for");
  return cudaErrorInvalidValue;
}

template <class S, class T, Activation activation, Residual residual,
          unsigned kernels = ALL_KERNELS>
cudaError_t run_tiles(cudaStream_t stream, const Gemm<T>& p, long wanted, Along along_b) {
  constexpr Along depth = Along::depth, width = Along::width;
  const long tiles = p.batch * ceil_div(p.M, S::BM) * ceil_div(p.N, S::BN);
  auto start = [&](GemmKernel<T> kernel) {
    return run<T>(kernel, tiles, S::THREADS, S::SHARED_BYTES, stream, p,
                  split_of(p, tiles, wanted));
  };
  if constexpr ((kernels & WIDTH) != 0) {
    if (along_b == width) return start(tile_kernel<S, T, depth, width, activation, residual>());
  }
  if constexpr ((kernels & DEPTH) != 0) {
    if (along_b == depth) return start(tile_kernel<S, T, depth, depth, activation, residual>());
  }
  return missing_kernel();
}

// Whether every kernel has this epilogue and takes the rows of A as they are.
constexpr bool is_plain(Residual residual, Norm norm) {
  return residual != Residual::gate && norm == Norm::none;
}

template <int ROWS, class T, Activation activation, Residual residual, unsigned kernels, Norm norm>
cudaError_t run_vector(cudaStream_t stream, const Gemm<T>& p, long wanted, Along along_b) {
  if constexpr ((kernels & DEPTH) != 0) {
    if (along_b == Along::depth) {
      const long columns = VECTOR_COLUMNS<residual> * (VECTOR_THREADS / 32);
      return run<T>(gemm_vector_depth<ROWS, T, norm, activation, residual>,
                    p.batch * ceil_div(p.N, columns), VECTOR_THREADS, 0, stream, p,
                    Split{1, p.K});
    }
  }
  if constexpr ((kernels & WIDTH) != 0 && is_plain(residual, norm)) {
    const long columns = VECTOR_CHUNKS * (16 / static_cast<long>(sizeof(T)));
    const long tiles = p.batch * ceil_div(p.N, columns);
    if (along_b == Along::width)
      return run<T>(gemm_vector_width<ROWS, T, activation, residual>, tiles, VECTOR_THREADS, 0,
                    stream, p, split_of(p, tiles, 4 * wanted));
  }
  return missing_kernel();
}

// Whether 16 bytes of B never reach over its edge; along depth A is read 16 bytes at a time where it
// is aligned.
template <class T>
bool is_vector(const Gemm<T>& p, Along along_b) {
  constexpr long per_chunk = 16 / sizeof(T);
  if (p.M > VECTOR_ROWS) return false;
  if (along_b == Along::width) return p.N % per_chunk == 0;
  return along_b == Along::depth && p.K % per_chunk == 0 && (p.a_col == 1 || p.K == 1);
}

// The tile for a product without a plan.
template <class S, class T, unsigned kernels>
unsigned usual_tile(const Gemm<T>& p, long multiprocessors) {
  if (!S::exact && (kernels & FEW) != 0 && p.M <= TensorFew<T>::BM) return FEW;
  const long large = p.batch * ceil_div(p.M, S::BM) * ceil_div(p.N, S::BN);
  return large >= multiprocessors ? LARGE : MEDIUM;
}

// The product with operands that can be copied 16 bytes at a time.
template <class T, Activation activation, Residual residual, Floats floats, unsigned kernels>
cudaError_t run_aligned(cudaStream_t stream, const Gemm<T>& p, long multiprocessors,
                        Along along_b) {
  constexpr bool exact = sizeof(T) == 4 && floats == Floats::exact;
  using Large = std::conditional_t<exact, FloatLarge, TensorLarge<T>>;
  using Medium = std::conditional_t<exact, FloatSmall, TensorMedium<T>>;
  constexpr unsigned TILES = FEW | MEDIUM | LARGE | WIDE;
  const bool planned = (p.plan.tile & TILES) != 0;
  const unsigned tile = planned ? p.plan.tile : usual_tile<Large, T, kernels>(p, multiprocessors);
  if constexpr (!exact && (kernels & FEW) != 0) {
    if (tile == FEW)
      return run_tiles<TensorFew<T>, T, activation, residual, kernels>(
          stream, p, 4 * multiprocessors, along_b);
  }
  if constexpr (sizeof(T) == 2 && (kernels & WIDE) != 0) {
    if (tile == WIDE)
      return run_tiles<TensorWide<T>, T, activation, residual, kernels>(stream, p, multiprocessors,
                                                                        along_b);
  }
  if constexpr ((kernels & LARGE) != 0) {
    if (tile == LARGE)
      return run_tiles<Large, T, activation, residual, kernels>(stream, p, multiprocessors,
                                                                along_b);
  }
  if constexpr ((kernels & MEDIUM) != 0) {
    if (tile == MEDIUM)
      return run_tiles<Medium, T, activation, residual, kernels>(stream, p, 2 * multiprocessors,
                                                                 along_b);
  }
  return missing_kernel();
}

template <class T, Activation activation, Residual residual, Floats floats, unsigned kernels,
          Norm norm>
cudaError_t gemm(cudaStream_t stream, Gemm<T> p) {
  if (p.batch < 1 || p.M < 1 || p.N < 1) return cudaSuccess;
  long multiprocessors = 0;
  const cudaError_t error = count_multiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const Along along_b = along_of_b(p);
  if constexpr ((kernels & VECTOR) != 0) {
    if (is_vector(p, along_b))
      return p.M == 1 ? run_vector<1, T, activation, residual, kernels, norm>(
                            stream, p, multiprocessors, along_b)
                      : run_vector<VECTOR_ROWS, T, activation, residual, kernels, norm>(
                            stream, p, multiprocessors, along_b);
  }
  if constexpr (is_plain(residual, norm)) {
    if (along_b != Along::elements && chunks_of_a(p))
      return run_aligned<T, activation, residual, floats, kernels>(stream, p, multiprocessors,
                                                                   along_b);
  }
  if constexpr (is_plain(residual, norm) && (kernels & ELEMENTS) != 0) {
    constexpr bool exact = sizeof(T) == 4 && floats == Floats::exact;
    using Small = std::conditional_t<exact, FloatSmall, TensorMedium<T>>;
    const long tiles = p.batch * ceil_div(p.M, Small::BM) * ceil_div(p.N, Small::BN);
    constexpr Along any = Along::elements;
    return run<T>(tile_kernel<Small, T, any, any, activation, residual>(), tiles, Small::THREADS,
                  Small::SHARED_BYTES, stream, p, split_of(p, tiles, 2 * multiprocessors));
  }
  return missing_kernel();
}

}  // namespace dfc::cuda
