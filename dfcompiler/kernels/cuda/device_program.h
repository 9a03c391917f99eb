// What a generated program takes from DaCe's runtime on a GPU. <dace/dace.h> takes nvcc 16 s to parse;
// it also prints and exits where this records the first failure for the C interface (check.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

#include "cuda/check.h"
#include "program.h"

using gpuStream_t = cudaStream_t;
using gpuEvent_t = cudaEvent_t;
using gpuError_t = cudaError_t;
inline const char* gpuGetErrorString(gpuError_t error) { return cudaGetErrorString(error); }

namespace dace::cuda {

// The streams and events of one instance of the program.
struct Context {
  std::vector<cudaStream_t> internal_streams, streams;
  std::vector<cudaEvent_t> events;
  cudaError_t lasterror = cudaSuccess;
  int num_streams, num_events;

  Context(int stream_count, int event_count)
      : internal_streams(stream_count),
        streams(stream_count),
        events(event_count),
        num_streams(stream_count),
        num_events(event_count) {}
};

}  // namespace dace::cuda

#define DACE_DFI __device__ __forceinline__
#define DACE_HFI __host__ __forceinline__
#define DACE_HDFI __host__ __device__ __forceinline__

#define DACE_GPU_CHECK(...) ::dfc::cuda::check((__VA_ARGS__), #__VA_ARGS__)
#define DACE_KERNEL_LAUNCH_CHECK(error, name, ...) ::dfc::cuda::check((error), (name))
#define DACE_KERNEL_REQUEST_DYNAMIC_SHARED_MEMORY(kernel, name, bytes)                            \
  do {                                                                                            \
    const cudaError_t refused = cudaFuncSetAttribute(                                             \
        (const void*)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));          \
    if (!::dfc::cuda::check(refused, (name))) return;                                             \
  } while (false)
