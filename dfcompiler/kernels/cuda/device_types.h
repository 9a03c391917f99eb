// DaCe's names of the 16-bit element types, for the programs that use them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace dace {

using float16 = __half;
using half = __half;
using bfloat16 = __nv_bfloat16;

}  // namespace dace
