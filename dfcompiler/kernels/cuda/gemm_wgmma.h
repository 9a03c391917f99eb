// The matrix product by wgmma, of sm_90a.
//
// Defined in gemm_wgmma.cuh, which only the translation unit with the instances includes.
#pragma once

#include "gemm.h"

namespace dfc::cuda {

// As `gemm` for bf16 and fp16; products of at most 64 rows, and operands that TMA cannot copy, are
// left to its other kernels.
template <class T, Activation activation, Residual residual, unsigned kernels = ALL_KERNELS>
cudaError_t gemm_wgmma(cudaStream_t stream, Gemm<T> p);

}  // namespace dfc::cuda
