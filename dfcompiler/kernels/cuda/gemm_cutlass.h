// The matrix product by CUTLASS, of sm_90a.
//
// Defined in gemm_cutlass.cuh, which only the translation unit with the instances includes; the
// kernels themselves are instances of cutlass_tiles.cuh, each in a unit of its own.
#pragma once

#include "gemm.h"

namespace dfc::cuda {

// Tiles that an instance may hold.
inline constexpr unsigned CUTLASS_WIDE = 1, CUTLASS_NARROW = 2;

// As `gemm` for bf16 and fp16; products that CUTLASS does not take (`fits_cutlass`) are left to its
// kernels, of which an instance holds `kernels`.
template <class T, Activation activation, Residual residual,
          unsigned tiles = CUTLASS_WIDE | CUTLASS_NARROW, unsigned kernels = ALL_KERNELS>
cudaError_t gemm_cutlass(cudaStream_t stream, Gemm<T> p);

}  // namespace dfc::cuda
