// In place of kernels/cuda/cutlass_tiles.cuh: plain loops over what a CUTLASS kernel is given.
//
// What TMA asks of addresses and strides is checked, as the driver would when it describes a matrix.
#pragma once

#include <cstdint>

#include "check.h"
#include "cutlass_tiles.h"
#include "gemm_finish.cuh"

namespace dfc::cuda {

inline bool is_described(const void* first, const CutlassStride& strides, int unit,
                         const std::array<int, 3>& extents) {
  bool right = reinterpret_cast<std::uintptr_t>(first) % 16 == 0;
  for (int axis = 0; axis < 3; ++axis) {
    if (axis == unit)
      right = right && strides[axis] == 1 && extents[axis] % 8 == 0;
    else
      right = right && strides[axis] % 8 == 0 && (extents[axis] == 1 || strides[axis] > 0);
  }
  return right;
}

template <Activation activation>
float activated(Activation wanted, float x) {
  if (wanted == activation) return activate<activation>(x);
  if constexpr (activation != Activation::none)
    return activated<static_cast<Activation>(static_cast<int>(activation) - 1)>(wanted, x);
  return x;
}

template <class T, class Tile, unsigned along>
cudaError_t cutlass_tiles(cudaStream_t, const CutlassProblem<T>& p, int multiprocessors) {
  const auto [M, N, K, L] = p.shape;
  const bool other = p.residual != Residual::none;
  if (multiprocessors < 1 || !is_described(p.a, p.a_stride, 1, {M, K, L}) ||
      !is_described(p.b, p.b_stride, along == WIDTH ? 0 : 1, {N, K, L}) ||
      (other && !is_described(p.c, p.c_stride, 1, {M, N, L})) ||
      !is_described(p.d, p.d_stride, 1, {M, N, L})) {
    explain_failure("TMA would refuse a matrix");
    return cudaErrorInvalidValue;
  }
  auto at = [](const CutlassStride& s, long i, long j, long l) {
    return i * s[0] + j * s[1] + l * s[2];
  };
  for (long l = 0; l < L; ++l)
    for (long m = 0; m < M; ++m)
      for (long n = 0; n < N; ++n) {
        float value = 0.0f;
        for (long k = 0; k < K; ++k)
          value += to_float(p.a[at(p.a_stride, m, k, l)]) * to_float(p.b[at(p.b_stride, n, k, l)]);
        value = value * p.alpha + (p.bias != nullptr ? to_float(p.bias[n]) : 0.0f);
        value = activated<Activation::sigmoid>(p.activation, value);
        if (other) {
          const float c = to_float(p.c[at(p.c_stride, m, n, l)]);
          value = p.residual == Residual::add ? value + c : value * c;
        }
        p.d[at(p.d_stride, m, n, l)] = from_float<T>(value);
      }
  return cudaSuccess;
}

}  // namespace dfc::cuda
