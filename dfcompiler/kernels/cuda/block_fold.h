// One value of each thread of a team, combined: every thread gets it, bit for bit the same.
//
//     lanes    a butterfly of 2, 4, … 32 neighbours of a warp: no barrier, no shared memory
//     block    a butterfly in each warp → one value of each warp in shared memory → a butterfly again
//
// All threads of the block call `block_fold`; their number is a multiple of 32. All threads of a team
// call `team_fold`; other teams of the warp may be elsewhere.
#pragma once

#include <cuda_runtime.h>

#include "math.h"

namespace dfc::rows {

template <class A>
__device__ inline A shuffle_xor(A value, int bits, unsigned lanes = 0xffffffffu) {
  if constexpr (sizeof(A) < 4) {
    return A(__shfl_xor_sync(lanes, int(value), bits));
  } else {
    return __shfl_xor_sync(lanes, value, bits);
  }
}

template <class A, class Combine>
__device__ inline A warp_fold(A value, const Combine& combine) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value = combine(value, shuffle_xor(value, bits));
  return value;
}

// The lanes of this thread's team of THREADS neighbours along x; teams lie along y.
template <int THREADS>
__device__ inline unsigned team_lanes() {
  static_assert((THREADS & (THREADS - 1)) == 0 && THREADS <= 32);
  if constexpr (THREADS == 32) return 0xffffffffu;
  else return ((1u << THREADS) - 1) << (threadIdx.y * THREADS % 32);
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

// `value` of the THREADS threads that share a row: a part of a warp, or the block.
template <int THREADS, class A, class Combine>
__device__ inline A team_fold(A value, A identity, const Combine& combine) {
  if constexpr (THREADS > 32) {
    return block_fold(value, identity, combine);
  } else {
    const unsigned lanes = team_lanes<THREADS>();
#pragma unroll
    for (int bits = THREADS / 2; bits > 0; bits /= 2)
      value = combine(value, shuffle_xor(value, bits, lanes));
    return value;
  }
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
