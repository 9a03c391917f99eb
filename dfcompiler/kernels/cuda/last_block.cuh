// Blocks that count themselves: the one that ends last goes on with what all of them have written.
#pragma once

#include <cuda_runtime.h>

namespace dfc::cuda {

// Whether the other `blocks` - 1 have called this with the same counter; what they wrote before can
// be read then, past the L1. The counter is zero before the first call and after the last. All
// threads of the block call it.
__device__ inline bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) == blocks - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

}  // namespace dfc::cuda
