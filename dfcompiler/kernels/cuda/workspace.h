// Device memory that kernels use between two launches of one stream: partial sums of a split.
//
// One block for each device and stream, allocated when it is first needed and kept: everything that
// uses it is enqueued on its stream, so it is never shared by two kernels at a time. Allocating is
// allowed while a graph is captured; the memory outlives the graph. Behind the block lie counters,
// zero at first, which every kernel that counts in them leaves at zero.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

namespace dfc::cuda {

inline constexpr std::size_t WORKSPACE_BYTES = std::size_t{32} << 20;
inline constexpr long WORKSPACE_COUNTERS = 1 << 14;

struct Workspaces {
  std::mutex lock;
  std::map<std::pair<int, cudaStream_t>, void*> blocks;
};

inline Workspaces& workspaces() {
  static Workspaces all;
  return all;
}

inline unsigned* counters_of(void* block) {
  return reinterpret_cast<unsigned*>(static_cast<unsigned char*>(block) + WORKSPACE_BYTES);
}

// A new block; its counters are set on a stream of their own, which no capture records.
inline cudaError_t allocate_workspace(void** block) {
  constexpr std::size_t counter_bytes = WORKSPACE_COUNTERS * sizeof(unsigned);
  cudaStream_t own = nullptr;
  void* made = nullptr;
  cudaError_t error = cudaMalloc(&made, WORKSPACE_BYTES + counter_bytes);
  if (error != cudaSuccess) return error;
  error = cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking);
  if (error == cudaSuccess) {
    error = cudaMemsetAsync(counters_of(made), 0, counter_bytes, own);
    if (error == cudaSuccess) error = cudaStreamSynchronize(own);
    const cudaError_t destroyed = cudaStreamDestroy(own);
    if (error == cudaSuccess) error = destroyed;
  }
  if (error == cudaSuccess) {
    *block = made;
    return error;
  }
  cudaFree(made);
  return error;
}

// WORKSPACE_BYTES that belong to the stream on the current device.
inline cudaError_t workspace_of(cudaStream_t stream, void** block) {
  int device = 0;
  const cudaError_t found = cudaGetDevice(&device);
  if (found != cudaSuccess) return found;
  Workspaces& all = workspaces();
  const std::lock_guard<std::mutex> held(all.lock);
  void*& kept = all.blocks[{device, stream}];
  if (kept == nullptr) {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaError_t error = cudaThreadExchangeStreamCaptureMode(&mode);
    if (error != cudaSuccess) return error;
    error = allocate_workspace(&kept);
    const cudaError_t restored = cudaThreadExchangeStreamCaptureMode(&mode);
    if (error != cudaSuccess) return error;
    if (restored != cudaSuccess) return restored;
  }
  *block = kept;
  return cudaSuccess;
}

// Frees the blocks of the current device's stream, when the stream is destroyed.
inline cudaError_t release_workspace(cudaStream_t stream) {
  int device = 0;
  const cudaError_t found = cudaGetDevice(&device);
  if (found != cudaSuccess) return found;
  Workspaces& all = workspaces();
  const std::lock_guard<std::mutex> held(all.lock);
  const auto kept = all.blocks.find({device, stream});
  if (kept == all.blocks.end()) return cudaSuccess;
  void* block = kept->second;
  all.blocks.erase(kept);
  return cudaFree(block);
}

}  // namespace dfc::cuda
