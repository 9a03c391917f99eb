// CUDA C++ for g++: kernels are functions, threads are fibers of one host thread (engine.h).
//
// What nvcc knows and a preprocessor cannot do is done to the text before it gets here (sources.py):
// `__shared__` variables become static ones that are poisoned when a block first touches them.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "engine.h"
#include "streams.h"

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __grid_constant__

inline constexpr int warpSize = 32;

namespace emulation {

// A `__shared__` variable: poison until its block writes it.
template <class T>
inline void enter_shared(T& variable, unsigned long& block, Place place = Place::current()) {
  if (block == block_number) return;
  block = block_number;
  take_shared(sizeof variable, place);
  std::memset(static_cast<void*>(&variable), POISON, sizeof variable);
}

template <class... Parameters>
struct Call {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;

  static void run(void* call) {
    auto& self = *static_cast<Call*>(call);
    std::apply(self.kernel, self.arguments);
  }
};

template <class... Parameters>
cudaError_t launch_call(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared,
                        cudaStream_t stream, std::tuple<Parameters...> arguments, Begins begins) {
  const void* function = reinterpret_cast<const void*>(kernel);
  return enqueue(stream, {function}, [=, call = Call<Parameters...>{kernel, arguments}]() mutable {
    return launch(function, call.run, &call, grid, block, shared, begins);
  });
}

template <class... Parameters, std::size_t... index>
cudaError_t launch_array(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                         std::size_t shared, cudaStream_t stream, std::index_sequence<index...>,
                         Begins begins) {
  return launch_call<Parameters...>(
      kernel, grid, block, shared, stream,
      {*static_cast<std::remove_reference_t<Parameters>*>(arguments[index])...}, begins);
}

// As cudaLaunchKernel, but it knows what the kernel takes.
template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                          std::size_t shared, cudaStream_t stream) {
  return launch_array(kernel, grid, block, arguments, shared, stream,
                      std::index_sequence_for<Parameters...>(), Begins::after);
}

}  // namespace emulation

// DaCe writes cudaLaunchKernel((void*)kernel, …): without the cast, the kernel has its type.
#define EMULATION_WITHOUT_CAST(type)
#define cudaLaunchKernel(kernel, ...) \
  ::emulation::launch_kernel(EMULATION_WITHOUT_CAST kernel, __VA_ARGS__)

// ---------------------------------------------------------------------------------- whole blocks

inline void __syncthreads(emulation::Place place = emulation::Place::current()) {
  emulation::barrier("__syncthreads", place, false);
}
inline int __syncthreads_count(int predicate,
                               emulation::Place place = emulation::Place::current()) {
  return emulation::barrier("__syncthreads_count", place, predicate != 0);
}
inline int __syncthreads_or(int predicate, emulation::Place place = emulation::Place::current()) {
  return emulation::barrier("__syncthreads_or", place, predicate != 0) > 0;
}
inline int __syncthreads_and(int predicate, emulation::Place place = emulation::Place::current()) {
  return emulation::barrier("__syncthreads_and", place, predicate == 0) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

inline void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value) {
  emulation::set_condition(handle, value);
}

#include "one_thread.h"
#include "warps.h"
