// Between two iterations of a loop (loop.h): one thread counts, looks at the flag, sets the condition.
//
// Bytes: 8 read and written, 1 of the flag. A launch of its own, because the last kernel of a body may
// have any number of blocks.
#pragma once

#include "cuda/launch.h"
#include "cuda/loop.h"

namespace dfc::cuda {

template <bool has_flag>
__global__ void loop_step(LoopStep step) {
  const std::int64_t next = step.moves ? *step.next + step.value : step.value;
  *step.next = next;
  if (!step.in_graph) return;
  bool goes_on = next < step.stop;
  if constexpr (has_flag) goes_on = goes_on && !*step.ended;
  cudaGraphSetConditional(step.condition, goes_on);
}

template <bool has_flag>
cudaError_t step_loop(cudaStream_t stream, LoopStep step) {
  return launch(loop_step<has_flag>, dim3(1), dim3(1), 0, stream, step);
}

}  // namespace dfc::cuda
