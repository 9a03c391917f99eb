// Times launches of one product: what `--tune` runs on the device that it tunes for.
//
//   block:  A₀ B₀ C₀ R₀ | A₁ B₁ C₁ R₁ | … | bias      run i has the operands i % copies
//
// The copies together are larger than the L2, so that a launch finds none of its operands there, as
// in a model whose layers take turns. Operands are random numbers: tensor cores that multiply zeros
// take less power, and run at a higher clock than they would. Before a launch that is looked at, C
// is NaN, so that what it does not write shows.
#pragma once

#include <cuda_runtime.h>

#include "check.h"
#include "gemm.h"
#include "launch.h"
#include "storage.h"
#include "workspace.h"

namespace dfc::cuda {

// One product and its operands on the device; a process has one at a time.
//
// Attributes:
//   along_depth: k of B is contiguous, else n.
//   element_bytes: of all operands.
//   copies: of each operand but the bias.
struct TimedProduct {
  long batch = 0, M = 0, N = 0, K = 0, along_depth = 0, element_bytes = 0, copies = 0;
  unsigned char* block = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t start = nullptr, end = nullptr;

  static long padded(long bytes) { return (bytes + 255) / 256 * 256; }
  long a_bytes() const { return padded(batch * M * K * element_bytes); }
  long b_bytes() const { return padded(batch * K * N * element_bytes); }
  long c_bytes() const { return padded(batch * M * N * element_bytes); }
  long copy_bytes() const { return a_bytes() + b_bytes() + 2 * c_bytes(); }
  long bytes() const { return copies * copy_bytes() + padded(N * element_bytes); }
  unsigned char* a(long copy) const { return block + copy * copy_bytes(); }
  unsigned char* b(long copy) const { return a(copy) + a_bytes(); }
  unsigned char* c(long copy) const { return b(copy) + b_bytes(); }
  unsigned char* residual(long copy) const { return c(copy) + c_bytes(); }
  unsigned char* bias() const { return block + copies * copy_bytes(); }
};

inline TimedProduct& timed_product() {
  static TimedProduct only;
  return only;
}

// Uniform numbers in [-1, 1), a function of their place alone.
template <class T>
__global__ void fill_random(T* to, long count) {
  const long place = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (place >= count) return;
  unsigned bits = static_cast<unsigned>(place) * 0x9e3779b9u + 0x7f4a7c15u;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
  to[place] = from_float<T>(static_cast<float>((bits ^ (bits >> 16)) >> 8) * 0x1p-23f - 1.0f);
}

inline cudaError_t release_product() {
  TimedProduct& p = timed_product();
  cudaError_t first = cudaSuccess;
  auto keep = [&](cudaError_t error) { first = first == cudaSuccess ? error : first; };
  if (p.block != nullptr) keep(cudaFree(p.block));
  if (p.start != nullptr) keep(cudaEventDestroy(p.start));
  if (p.end != nullptr) keep(cudaEventDestroy(p.end));
  if (p.stream != nullptr) {
    keep(release_workspace(p.stream));
    keep(cudaStreamDestroy(p.stream));
  }
  p = TimedProduct{};
  return first;
}

// Makes the operands of a product, in place of those of the one before.
template <class T>
cudaError_t prepare_product(const TimedProduct& wanted) {
  cudaError_t error = release_product();
  if (error != cudaSuccess) return error;
  TimedProduct& p = timed_product();
  p = wanted;
  p.element_bytes = sizeof(T);
  error = cudaMalloc(reinterpret_cast<void**>(&p.block), static_cast<std::size_t>(p.bytes()));
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&p.stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaEventCreate(&p.start);
  if (error == cudaSuccess) error = cudaEventCreate(&p.end);
  const long count = p.bytes() / static_cast<long>(sizeof(T));
  if (error == cudaSuccess)
    error = launch(fill_random<T>, dim3(static_cast<unsigned>((count + 255) / 256)), dim3(256), 0,
                   p.stream, reinterpret_cast<T*>(p.block), count);
  return error == cudaSuccess ? cudaStreamSynchronize(p.stream) : error;
}

template <class T>
Gemm<T> operands_of(const TimedProduct& p, long copy, bool bias, bool residual) {
  auto typed = [](unsigned char* at) { return reinterpret_cast<T*>(at); };
  const bool depth = p.along_depth != 0;
  Gemm<T> gemm{p.batch, p.M, p.N, p.K, typed(p.a(copy)), p.K, 1, p.M * p.K, typed(p.b(copy)),
               depth ? 1 : p.N, depth ? p.K : 1, p.K * p.N, typed(p.c(copy)), p.N, p.M * p.N};
  if (bias) gemm.bias = typed(p.bias());
  if (residual) {
    gemm.residual = typed(p.residual(copy));
    gemm.residual_row = p.N;
    gemm.residual_batch = p.M * p.N;
  }
  return gemm;
}

// Seconds of a launch on average; `runs` 0: one that is looked at, C being NaN before it.
template <class T, class Launch>
cudaError_t time_product(Launch launch, bool bias, bool residual, long runs, double* seconds) {
  const TimedProduct& p = timed_product();
  cudaError_t error = cudaSuccess;
  if (runs == 0)
    error = cudaMemsetAsync(p.c(0), 0xff, static_cast<std::size_t>(p.c_bytes()), p.stream);
  if (error == cudaSuccess) error = cudaEventRecord(p.start, p.stream);
  for (long i = 0; i < (runs == 0 ? 1 : runs) && error == cudaSuccess; ++i)
    error = launch(p.stream, operands_of<T>(p, i % p.copies, bias, residual));
  if (error == cudaSuccess) error = cudaEventRecord(p.end, p.stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(p.stream);
  float milliseconds = 0.0f;
  if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, p.start, p.end);
  *seconds = 1e-3 * milliseconds / static_cast<double>(runs == 0 ? 1 : runs);
  // An error that launching left behind is this launch's, not the next one's.
  const cudaError_t left = cudaGetLastError();
  return error == cudaSuccess ? left : error;
}

// Copies the first C to the host.
inline cudaError_t result_of_product(void* host) {
  const TimedProduct& p = timed_product();
  const long bytes = p.batch * p.M * p.N * p.element_bytes;
  return cudaMemcpy(host, p.c(0), static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost);
}

}  // namespace dfc::cuda
