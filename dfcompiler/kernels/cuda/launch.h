// How a kernel is launched: grid, block, dynamic shared memory, stream; the result is checked.
//
// A host emulator replaces this header (and ptx.h): nothing else launches our own kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace dfc::cuda {

// What the C++ rules make of an argument for a parameter, without deducing from it.
template <class T>
struct Exactly {
  using type = T;
};

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
  return cudaLaunchKernel(function, grid, block, pointers, shared_bytes, stream);
}

}  // namespace dfc::cuda
