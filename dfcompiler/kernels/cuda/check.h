// What went wrong first in a call: the code, and which step of the program it was.
//
// Generated code wraps each launch, DFC_CUDA(__state, dfc::cuda::gemm<…>(…)); the C interface
// clears the record before a call and reads it afterwards. Nothing here exits or prints.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>

namespace dfc::cuda {

// Attributes:
//   code: cudaSuccess if nothing failed.
//   step: the call that failed, as the program spells it.
//   detail: a sentence that says more than the code, or empty.
struct Failure {
  cudaError_t code = cudaSuccess;
  const char* step = "";
  char detail[256] = "";
};

inline Failure& failure() {
  static thread_local Failure first;
  return first;
}

inline void clear_failure() { failure() = Failure{}; }

// Says more about the failure that is about to be recorded; the first sentence stays.
inline void explain_failure(const char* sentence) {
  Failure& first = failure();
  if (first.detail[0] == '\0')
    std::snprintf(first.detail, sizeof first.detail, "%s", sentence);
}

// Keeps the first failure; returns whether the step went well.
inline bool check(cudaError_t code, const char* step) {
  Failure& first = failure();
  if (code != cudaSuccess && first.code == cudaSuccess) {
    first.code = code;
    first.step = step;
  }
  return code == cudaSuccess;
}

}  // namespace dfc::cuda

#define DFC_CUDA(state, ...)                         \
  do {                                               \
    static_cast<void>(state);                        \
    ::dfc::cuda::check((__VA_ARGS__), #__VA_ARGS__); \
  } while (false)
