// The matrix product by cuBLASLt, which is looked for when the first product runs.
//
// Defined in gemm_lt.cuh, which only the translation unit with the instances includes.
#pragma once

#include "gemm.h"

namespace dfc::cuda {

// As `gemm`. What cuBLASLt has no epilogue for is done to its rounded result by a kernel of ours.
template <class T, Activation activation, Residual residual>
cudaError_t gemm_lt(cudaStream_t stream, Gemm<T> p);

}  // namespace dfc::cuda
