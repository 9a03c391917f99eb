// One value of each thread of a block, combined: every thread gets it, bit for bit the same.
//
//     a butterfly in each warp → one value of each warp in shared memory → a butterfly again
//
// All threads of the block call `block_fold`; their number is a multiple of 32.
#pragma once

#include <cuda_runtime.h>

#include "math.h"

namespace dfc::rows {

template <class A>
__device__ inline A shuffle_xor(A value, int bits) {
  if constexpr (sizeof(A) < 4) {
    return A(__shfl_xor_sync(0xffffffffu, int(value), bits));
  } else {
    return __shfl_xor_sync(0xffffffffu, value, bits);
  }
}

template <class A, class Combine>
__device__ inline A warp_fold(A value, const Combine& combine) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value = combine(value, shuffle_xor(value, bits));
  return value;
}

// `value` of all threads, combined; every thread gets it. combine is associative and commutative.
template <class A, class Combine>
__device__ inline A block_fold(A value, A identity, const Combine& combine) {
  __shared__ A partial[32];
  value = warp_fold(value, combine);
  if (blockDim.x <= 32) return value;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = warp_fold(lane < warps ? partial[lane] : identity, combine);
  __syncthreads();  // before the next fold writes there
  return value;
}

struct Add {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

struct Greater {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return maximum(a, b);
  }
};

struct Same {
  template <class A>
  __device__ A operator()(A x) const {
    return x;
  }
};

}  // namespace dfc::rows
