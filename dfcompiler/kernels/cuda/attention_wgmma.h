// Launcher of attention by wgmma, of sm_90a.
//
// Defined in attention_wgmma.cuh, which only the translation unit with the instances includes.
#pragma once

#include "attention.h"

namespace dfc::cuda {

// As `attention`, for bf16 and fp16 and WIDTH 32, 64 or 128. What has few rows, or operands that a
// tensor map cannot describe, is left to `attention`.
template <class T, class M, int WIDTH, bool CAUSAL>
cudaError_t attention_wgmma(cudaStream_t stream, Attention<T, M> p);

}  // namespace dfc::cuda
