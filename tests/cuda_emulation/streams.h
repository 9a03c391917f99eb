// Streams of the emulation: work is done at once, or recorded where a stream is captured.
//
// A graph is a chain of nodes. What CUDA refuses is refused: work that a capture cannot record, a chain
// that is not joined, host memory in the body of a conditional node, a wait inside of a capture.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace emulation {

using Work = std::function<cudaError_t()>;

// Attributes:
//   kernel: the function that is launched, nullptr for copies.
//   is_pageable: whether memory of the host that a GPU does not see is touched.
struct Kind {
  const void* kernel = nullptr;
  bool is_pageable = false;
};

// Does the work now, or records it with everything that it holds by value.
cudaError_t enqueue(cudaStream_t stream, Kind kind, Work work);

// What a host call gives that waits for the device, and one that allocates: an error during a capture.
cudaError_t wait_for(cudaStream_t stream);
cudaError_t wait_for_device();
cudaError_t may_allocate();

// A copy of pageable memory has returned, whose last bytes are on their way on the default stream: no
// kernel of another stream may run before the host has waited for that one.
void leave_arriving();

// The condition that cudaGraphSetConditional sets.
void set_condition(cudaGraphConditionalHandle handle, unsigned value);

}  // namespace emulation
