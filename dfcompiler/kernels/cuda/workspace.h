// Device memory that kernels use between two launches of one stream: partial sums of a split.
//
// One block for each device and stream, allocated when it is first needed and kept: everything that
// uses it is enqueued on its stream, so it is never shared by two kernels at a time. Allocating is
// allowed while a graph is captured; the memory outlives the graph.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

namespace dfc::cuda {

inline constexpr std::size_t WORKSPACE_BYTES = std::size_t{32} << 20;

struct Workspaces {
  std::mutex lock;
  std::map<std::pair<int, cudaStream_t>, void*> blocks;
};

inline Workspaces& workspaces() {
  static Workspaces all;
  return all;
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
    error = cudaMalloc(&kept, WORKSPACE_BYTES);
    const cudaError_t restored = cudaThreadExchangeStreamCaptureMode(&mode);
    if (error != cudaSuccess) {
      kept = nullptr;
      return error;
    }
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
