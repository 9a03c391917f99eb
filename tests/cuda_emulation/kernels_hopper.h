// In place of kernels/cuda/hopper.h: products of a warp group, one thread's sums at a time.
//
// A product is done when it is called: waiting for it finds nothing, but operands that are not there
// yet are poison.
#pragma once

#include "ptx.h"

namespace dfc::cuda {

struct Descriptor {
  const unsigned char* first;
  int leading, stride;
};

inline Descriptor make_descriptor(const void* first, int leading, int stride) {
  return {static_cast<const unsigned char*>(first), leading, stride};
}
inline Descriptor advanced(Descriptor from, int bytes) {
  from.first += bytes;
  return from;
}
inline unsigned char* aligned_1024(unsigned char* bytes) {
  return bytes + (1024 - reinterpret_cast<std::uintptr_t>(bytes) % 1024) % 1024;
}
inline void fence_for_wgmma() {}
inline void wgmma_begin() {}
inline void wgmma_commit() {}
template <int pending>
void wgmma_wait() {}

// What lies where the bits 4 to 6 of an address are xored with its bits 7 to 9.
template <class T>
float swizzled_element(const unsigned char* address) {
  const auto plain = reinterpret_cast<std::uintptr_t>(address);
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(plain ^ (plain >> 7 & 7) << 4), sizeof value);
  return static_cast<float>(value);
}

template <class T>
float operand(const Descriptor& m, bool transposed, int row, int k) {
  const int across = transposed ? k : row, along = transposed ? row : k;
  return swizzled_element<T>(m.first + along / 64 * m.leading + across / 8 * m.stride +
                             across % 8 * 128 + along % 64 * 2);
}

template <bool transposed_b, class T>
void wgmma_m64n128k16(float (&d)[64], Descriptor a, Descriptor b, T) {
  const int w = threadIdx.x / 32 % 4, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 64; ++i) {
    const int row = 16 * w + g + i / 2 % 2 * 8, column = i / 4 * 8 + 2 * t + i % 2;
    for (int k = 0; k < 16; ++k)
      d[i] += operand<T>(a, false, row, k) * operand<T>(b, transposed_b, column, k);
  }
}

}  // namespace dfc::cuda
