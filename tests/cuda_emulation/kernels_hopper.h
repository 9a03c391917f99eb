// In place of kernels/cuda/hopper.h: products of a warp group, each thread its own sums.
//
// A product happens when it is waited for, from what shared memory then holds; until then its sums
// are poison.
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
  return {from.first + bytes, from.leading, from.stride};
}

inline unsigned char* aligned_1024(unsigned char* bytes) {
  return bytes + (1024 - reinterpret_cast<std::uintptr_t>(bytes) % 1024) % 1024;
}

inline void fence_for_wgmma() {}

// The 16-byte chunk of a row of 128 bytes is permuted by the row's place among eight.
template <class T>
float swizzled_element(const unsigned char* at) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(address ^ (address >> 7 & 7) << 4), sizeof value);
  return static_cast<float>(value);
}

// Element k of a row (of A, or a column of B) with k contiguous.
template <class T>
float along_k(const Descriptor& from, int row, int k) {
  return swizzled_element<T>(from.first + row / 8 * from.stride + row % 8 * 128 + k * 2);
}

// Element n of step k, with n contiguous.
template <class T>
float along_n(const Descriptor& from, int n, int k) {
  return swizzled_element<T>(from.first + n / 64 * from.leading + k / 8 * from.stride +
                             k % 8 * 128 + n % 64 * 2);
}

inline void wgmma_begin(Place place = Place::current()) {
  emulation::collective("wgmma_begin", place, 0xffffffffu, nullptr, nullptr);
}

inline void wgmma_commit(Place place = Place::current()) {
  emulation::collective("wgmma_commit", place, 0xffffffffu, nullptr, nullptr);
  emulation::commit_products();
}

template <int pending>
void wgmma_wait(Place place = Place::current()) {
  emulation::collective("wgmma_wait", place, 0xffffffffu, nullptr, nullptr);
  emulation::wait_for_products(pending);
}

template <int products>
void keep_in_place(float (&)[products][64]) {}

template <bool transposed_b, class T>
void wgmma_m64n128k16(float (&d)[64], Descriptor a, Descriptor b, T,
                      Place place = Place::current()) {
  emulation::collective("wgmma_m64n128k16", place, 0xffffffffu, nullptr, nullptr);
  const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
  const int column = thread % 4 * 2;
  float* sums = emulation::claim_sums(d, 64);
  emulation::add_product([=] {
    for (int i = 0; i < 64; ++i) {
      const int m = row + i / 2 % 2 * 8, n = i / 4 * 8 + column + i % 2;
      for (int k = 0; k < 16; ++k)
        sums[i] += along_k<T>(a, m, k) * (transposed_b ? along_n<T>(b, n, k) : along_k<T>(b, n, k));
    }
  });
}

}  // namespace dfc::cuda
