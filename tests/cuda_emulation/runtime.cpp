// The CUDA runtime of the emulation: one device whose memory is the host's, streams that are done at
// once. Functions that nothing of ours calls are absent, so a library that needs them does not load.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "engine.h"
#include "memory.h"
#include "streams.h"
#include "tensor_maps.h"

namespace {

cudaError_t last = cudaSuccess;
std::map<void*, std::size_t> pinned;
long streams = 0, events = 0;

cudaError_t done(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}

// To wait reports what a kernel did, not what another call was refused.
cudaError_t waited(cudaError_t error) {
  const bool faulted = error == cudaSuccess && last == cudaErrorLaunchFailure;
  return faulted ? last : error;
}

// Memory that a GPU does not see.
bool is_pageable(const void* pointer) {
  if (emulation::is_device_memory(pointer)) return false;
  auto found = pinned.upper_bound(const_cast<void*>(pointer));
  if (found == pinned.begin()) return true;
  --found;
  return static_cast<const char*>(pointer) >= static_cast<char*>(found->first) + found->second;
}

// A handle that is not null, not memory, and not a name of the runtime's own streams.
template <class Handle>
Handle handle(long number) {
  return reinterpret_cast<Handle>(number + 2);
}

}  // namespace

#define EMULATED extern "C" __attribute__((visibility("default")))

EMULATED const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    default: return "an error";
  }
}
EMULATED const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  return cudaGetErrorString(error);
}
EMULATED cudaError_t CUDARTAPI cudaGetLastError() { return std::exchange(last, cudaSuccess); }
EMULATED cudaError_t CUDARTAPI cudaPeekAtLastError() { return last; }

// ---------------------------------------------------------------------------------------- device

EMULATED cudaError_t CUDARTAPI cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaSetDevice(int device) {
  return done(device ? cudaErrorInvalidDevice : cudaSuccess);
}
EMULATED cudaError_t CUDARTAPI cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaRuntimeGetVersion(int* version) {
  return cudaDriverGetVersion(version);
}
EMULATED cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;  // few, so that tests split little
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 << 10; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    default: return done(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGetDriverEntryPointByVersion(
    const char* name, void** function, unsigned, unsigned long long,
    cudaDriverEntryPointQueryResult* outcome) {
  const bool found = !std::strcmp(name, "cuTensorMapEncodeTiled");
  *function = found ? reinterpret_cast<void*>(emulation::encode_tiled) : nullptr;
  *outcome = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaDeviceSynchronize() {
  return waited(emulation::wait_for_device());
}
EMULATED cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                                    int value) {
  const bool known = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize;
  if (!known) return cudaSuccess;
  const bool fits = value >= 0 && emulation::set_most_dynamic_bytes(kernel, std::size_t(value));
  return done(fits ? cudaSuccess : cudaErrorInvalidValue);
}

// ---------------------------------------------------------------------------------------- memory

EMULATED cudaError_t CUDARTAPI cudaMalloc(void** memory, std::size_t bytes) {
  if (const cudaError_t error = emulation::may_allocate()) return done(error);
  *memory = emulation::allocate(bytes, 256);
  return done(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}
EMULATED cudaError_t CUDARTAPI cudaMemGetInfo(std::size_t* free_there, std::size_t* all) {
  *free_there = std::size_t(1) << 30;
  *all = std::size_t(1) << 31;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaFree(void* memory) {
  if (const cudaError_t error = emulation::may_allocate()) return done(error);
  return done(!memory || emulation::release(memory) ? cudaSuccess : cudaErrorInvalidValue);
}
EMULATED cudaError_t CUDARTAPI cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(memory, bytes);
}
EMULATED cudaError_t CUDARTAPI cudaFreeAsync(void* memory, cudaStream_t) { return cudaFree(memory); }
EMULATED cudaError_t CUDARTAPI cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  *memory = std::malloc(bytes ? bytes : 1);
  if (*memory) pinned[*memory] = bytes;
  return done(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}
EMULATED cudaError_t CUDARTAPI cudaMallocHost(void** memory, std::size_t bytes) {
  return cudaHostAlloc(memory, bytes, 0);
}
EMULATED cudaError_t CUDARTAPI cudaFreeHost(void* memory) {
  pinned.erase(memory);
  std::free(memory);
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaPointerGetAttributes(cudaPointerAttributes* facts,
                                                        const void* pointer) {
  std::memset(facts, 0, sizeof *facts);
  facts->hostPointer = facts->devicePointer = const_cast<void*>(pointer);
  const bool is_pinned = pinned.count(const_cast<void*>(pointer)) > 0;
  facts->type = emulation::is_device_memory(pointer) ? cudaMemoryTypeDevice
                : is_pinned                          ? cudaMemoryTypeHost
                                                     : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                                               cudaMemcpyKind, cudaStream_t stream) {
  return emulation::enqueue(stream, {nullptr, is_pageable(to) || is_pageable(from)}, [=] {
    std::memmove(to, from, bytes);
    return cudaSuccess;
  });
}
EMULATED cudaError_t CUDARTAPI cudaMemcpy(void* to, const void* from, std::size_t bytes,
                                          cudaMemcpyKind kind) {
  cudaError_t error = emulation::wait_for_device();
  if (error == cudaSuccess) error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  if (is_pageable(from) && emulation::is_device_memory(to)) emulation::leave_arriving();
  return error;
}
EMULATED cudaError_t CUDARTAPI cudaMemsetAsync(void* to, int value, std::size_t bytes,
                                               cudaStream_t stream) {
  return emulation::enqueue(stream, {nullptr, is_pageable(to)}, [=] {
    std::memset(to, value, bytes);
    return cudaSuccess;
  });
}
EMULATED cudaError_t CUDARTAPI cudaMemset(void* to, int value, std::size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

// ----------------------------------------------------------------------------- streams and events

EMULATED cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = handle<cudaStream_t>(++streams);
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}
EMULATED cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
EMULATED cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
  return waited(emulation::wait_for(stream));
}
EMULATED cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = handle<cudaEvent_t>(++events);
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
// A millisecond passes between any two events.
EMULATED cudaError_t CUDARTAPI cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.0f;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
EMULATED cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
EMULATED cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t) {
  emulation::wait_for(nullptr);
  return last;
}
