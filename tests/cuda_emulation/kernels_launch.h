// In place of kernels/cuda/launch.h.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "predecessor.h"

namespace dfc::cuda {

template <class... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, std::type_identity_t<Parameters>... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared_bytes > 0) {
    const cudaError_t error = cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
        static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  constexpr auto begins = (is_awaited<Parameters> || ...) ? emulation::Begins::early
                                                          : emulation::Begins::after;
  return emulation::launch_call<Parameters...>(kernel, grid, block, shared_bytes, stream,
                                               {arguments...}, begins);
}

template <class... Parameters>
cudaError_t launch_following(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                             void** arguments, std::size_t shared_bytes, cudaStream_t stream) {
  return emulation::launch_array(kernel, grid, block, arguments, shared_bytes, stream,
                                 std::index_sequence_for<Parameters...>(),
                                 emulation::Begins::early);
}

}  // namespace dfc::cuda
