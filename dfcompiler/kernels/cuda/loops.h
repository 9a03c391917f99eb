// What an instance of a program has for its loops (loop.h), whether the program has any or not.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/workspace.h"

namespace dfc::cuda {

// A cudaGraphConditionalHandle, which toolkits before 12.3 do not have.
using LoopCondition = unsigned long long;

// Attributes:
//   next: the iteration that comes next.
//   value: it becomes this, or moves by it if `moves`.
//   stop: the loop ends in front of this iteration,
//   ended: or where this is true; unless the loop has no flag.
//   condition: set to whether the loop goes on, if `in_graph`.
struct LoopStep {
  std::int64_t* next;
  std::int64_t value;
  bool moves;
  std::int64_t stop;
  const bool* ended;
  LoopCondition condition;
  bool in_graph;
};

// The loops of an instance: one at a time is under way, those of a call one after the other.
//
// Attributes:
//   around, body: streams to which graphs and bodies of loops are captured.
//   next: in device memory.
//   kept: graphs of the loops of the call under way, empty where there is none yet.
//   skipped: a flag ended a loop of the call before anything of it ran.
struct Loops {
  cudaStream_t around = nullptr, body = nullptr;
  std::int64_t* next = nullptr;
  std::vector<cudaGraphExec_t>* kept = nullptr;
  bool skipped = false;

  // The loop under way; `outside` is the stream of the call, `outer` what its graph is captured on.
  enum class Pass { none, direct, captured } made = Pass::none;
  std::size_t number = 0;
  std::int64_t start = 0, stop = 0;
  const bool* ended = nullptr;
  cudaError_t (*step)(cudaStream_t, LoopStep) = nullptr;
  cudaStream_t outside = nullptr, outer = nullptr;
  LoopCondition condition = 0;

  cudaError_t set_next(std::int64_t value) const {
    return step(outside, {next, value, false, stop, ended, 0, false});
  }
};

// The loops of the instance whose call this thread makes.
inline Loops*& loops_of_call() {
  static thread_local Loops* current = nullptr;
  return current;
}

inline cudaError_t open_loops(Loops* loops) {
  cudaError_t error = cudaSuccess;
  if (!loops->around) error = cudaStreamCreateWithFlags(&loops->around, cudaStreamNonBlocking);
  if (error == cudaSuccess && !loops->body)
    error = cudaStreamCreateWithFlags(&loops->body, cudaStreamNonBlocking);
  if (error == cudaSuccess && !loops->next)
    error = cudaMalloc(reinterpret_cast<void**>(&loops->next), sizeof *loops->next);
  return error;
}

// Nothing of the instance may run any more.
inline void close_loops(Loops* loops) {
  if (loops->next) cudaFree(loops->next);
  if (loops->around) cudaStreamDestroy(loops->around);
  if (!loops->body) return;
  release_workspace(loops->body);
  cudaStreamDestroy(loops->body);
}

inline void forget_loops(std::vector<cudaGraphExec_t>* kept) {
  for (cudaGraphExec_t graph : *kept)
    if (graph) cudaGraphExecDestroy(graph);
  kept->clear();
}

}  // namespace dfc::cuda
