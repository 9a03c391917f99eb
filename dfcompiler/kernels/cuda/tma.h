// Copies of boxes of a tensor into shared memory (TMA, sm_90), each started by one thread.
//
//   tensor (tensor_map.h)            shared memory, aligned to 1024 bytes
//     ┌──────────────────┐            ┌────────────────┐  a row for each row of the box, whose
//     │     ┌─────┐ c1   │    ──▶     │ 128-byte rows, │  16-byte chunks are permuted by the row as
//     │     │ box │      │            │ swizzled       │  `swizzled<8>` and wgmma do
//     └─────┴─────┴──────┘            └────────────────┘
//       c0                 what lies outside of the tensor is zero, and counts as bytes too
//
// The copy is over when the phase of the barrier ends: see `Barrier::arrive_expecting`. A block
// ends only after all of its copies are over.
//
// What threads wrote there themselves is ordered before a copy by `fence_for_copies`; what wgmma
// read, by its wait and an arrival at a barrier that the thread that copies has waited for.
//
// Source: PTX ISA 9.0, "Data Movement and Conversion Instructions: cp.async.bulk.tensor".
#pragma once

#include "barrier.h"
#include "tensor_map.h"

namespace dfc::cuda {

// Fetches a map, a __grid_constant__ parameter, before its first use.
__device__ inline void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];"
               :
               : "l"(reinterpret_cast<unsigned long long>(&map))
               : "memory");
}

// Starts the copy of the box whose first element is [c2, c1, c0]; coordinates may lie outside.
__device__ inline void load_tile(void* shared, const TensorMap& map, Barrier& barrier, int c0,
                                 int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(reinterpret_cast<unsigned long long>(&map)),
        "r"(shared_address(&barrier.word)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}

// The same of a tensor with four axes, [c3, c2, c1, c0].
__device__ inline void load_tile(void* shared, const TensorMap& map, Barrier& barrier, int c0,
                                 int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(reinterpret_cast<unsigned long long>(&map)),
        "r"(shared_address(&barrier.word)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

// Before a barrier behind which shared memory that this thread wrote is copied to or read by wgmma.
__device__ inline void fence_for_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace dfc::cuda
