// Blocks that count themselves: the one that ends last goes on with what all of them have written.
#pragma once

#include <cuda_runtime.h>

namespace dfc::cuda {

// Whether the other `blocks` - 1 have called this with the same counter; what they wrote before can
// be read then, past the L1. The counter is zero before the first call and after the last. All
// threads of the block call it.
//
// The fences are the counting thread's: between the barrier, which puts the writes of the whole block
// in front of it, and the count it is a release of all of them; behind the count, an acquire. A fence
// in front of the barrier orders a thread's own writes alone, and costs a wait of every warp.
__device__ inline bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(counter, 1u) == blocks - 1;
    if (last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace dfc::cuda
