// How a kernel is launched: grid, block, dynamic shared memory, stream; the result is checked.
//
// A kernel with an Awaited parameter begins while the one before it still runs (predecessor.h).
// Captured calls keep that: the edge between two such kernels of a CUDA graph is a programmatic one.
//
// A host emulator replaces this header (and ptx.h): nothing else launches our own kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#include "predecessor.h"

namespace dfc::cuda {

// What the C++ rules make of an argument for a parameter, without deducing from it.
template <class T>
struct Exactly {
  using type = T;
};

// Whether all devices that this is compiled for can begin a kernel before its predecessor has ended.
constexpr bool devices_overlap() {
  for (const int architecture : {__CUDA_ARCH_LIST__})
    if (architecture < 900) return false;
  return true;
}
static_assert(!devices_overlap() || CUDART_VERSION >= 12030,
              "code for sm_90 needs CUDA 12.3 or newer: graphs of older ones lose kernels' overlap");

// Launches a kernel that waits for its predecessor before anything else; `arguments` as
// cudaLaunchKernel takes them.
inline cudaError_t launch_early(const void* function, dim3 grid, dim3 block, void** arguments,
                                std::size_t shared_bytes, cudaStream_t stream) {
  if constexpr (devices_overlap()) {
    cudaLaunchAttribute overlap{};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t configuration{};
    configuration.gridDim = grid;
    configuration.blockDim = block;
    configuration.dynamicSmemBytes = shared_bytes;
    configuration.stream = stream;
    configuration.attrs = &overlap;
    configuration.numAttrs = 1;
    return cudaLaunchKernelExC(&configuration, function, arguments);
  } else {
    return cudaLaunchKernel(function, grid, block, arguments, shared_bytes, stream);
  }
}

// The same for generated code, whose kernels call `follow_predecessor` in their first line.
template <class... Parameters>
cudaError_t launch_following(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                             void** arguments, std::size_t shared_bytes, cudaStream_t stream) {
  return launch_early(reinterpret_cast<const void*>(kernel), grid, block, arguments, shared_bytes,
                      stream);
}

// Launches kernel(arguments...); an empty grid launches nothing.
//
// Without the attribute a block gets 48 KB, of which what the kernel declares itself is a part.
template <class... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, typename Exactly<Parameters>::type... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 0) {
    const cudaError_t error = cudaFuncSetAttribute(
        function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  void* pointers[] = {static_cast<void*>(&arguments)...};
  if constexpr ((is_awaited<std::remove_cv_t<Parameters>> || ...))
    return launch_early(function, grid, block, pointers, shared_bytes, stream);
  else
    return cudaLaunchKernel(function, grid, block, pointers, shared_bytes, stream);
}

}  // namespace dfc::cuda
