// What the roles of a block need (sm_90): registers that warp groups hand over, barriers of some warps.
//
// A warp group is four warps, 128 threads, whose first warp is a multiple of four. All of it calls
// these functions together.
#pragma once

#include "ptx.h"

namespace dfc::cuda {

// The registers that a thread of a multiprocessor's only block begins with, of at most 65,536 for
// all: what groups take from each other is never more, or they would wait for ever.
constexpr int registers_at_start(int threads) { return 65536 / threads / 8 * 8; }

// From now on a thread of this warp group has `count` registers, fewer or more than before: 24 to
// 256, a multiple of 8. More of them are waited for until other groups have given enough back.
//
// A kernel that calls these has __launch_bounds__ with the blocks of a multiprocessor, so that the
// count at its start is known; without it ptxas ignores them (warning C7508).
template <int count>
__device__ inline void give_back_registers_to() {
  static_assert(count >= 24 && count <= 256 && count % 8 == 0);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(count));
}
template <int count>
__device__ inline void take_registers_to() {
  static_assert(count >= 24 && count <= 256 && count % 8 == 0);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(count));
}

// A barrier of `threads` threads of the block, a multiple of 32, by its number, 1 to 15 (0 is that
// of __syncthreads). `sync_at` waits for all of them; `arrive_at` counts as one and goes on.
__device__ inline void sync_at(int number, int threads) {
  asm volatile("barrier.sync.aligned %0, %1;" : : "r"(number), "r"(threads) : "memory");
}
__device__ inline void arrive_at(int number, int threads) {
  asm volatile("barrier.arrive.aligned %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

}  // namespace dfc::cuda
