// In place of kernels/cuda/wgmma.h: products of a warp group, each thread its own sums.
//
// A product happens when it is waited for, from what shared memory then holds and was fenced
// (async_view.h); until then its sums are poison. A in registers is what they hold when the product
// is started.
#pragma once

#include <array>
#include <memory>

#include "async_view.h"
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

// The 16-byte chunk of a row of 128 bytes is permuted by the row's place among eight.
template <class T>
float swizzled_element(const unsigned char* at) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  T value;
  const auto place = (address ^ (address >> 7 & 7) << 4) + emulation::view_offset;
  std::memcpy(&value, reinterpret_cast<const void*>(place), sizeof value);
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
  emulation::fence_sums();
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

template <int count>
void keep_in_place(float (&)[count]) {}
template <int products, int count>
void keep_in_place(float (&)[products][count]) {}

// Two rows of A as this thread multiplies them: g and g + 8 of its warp.
using TwoRows = std::array<std::array<float, 16>, 2>;

// sums = (add ? sums : 0) + a·b when the product is waited for; `rows_of_a` gives A then.
template <bool transposed_b, class T, int count, class Rows>
void start_product(float (&d)[count], Rows rows_of_a, Descriptor b, bool add, Place place) {
  const int column = threadIdx.x % 4 * 2;
  float* sums = emulation::claim_sums(d, count, place);
  emulation::add_product([=] {
    const TwoRows a = rows_of_a();
    for (int j = 0; j < count / 2; ++j) {
      const int n = j / 2 * 8 + column + j % 2;
      float* two[] = {sums + j / 2 * 4 + j % 2, sums + j / 2 * 4 + j % 2 + 2};
      if (!add) *two[0] = *two[1] = 0.0f;
      for (int k = 0; k < 16; ++k) {
        const float right = transposed_b ? along_n<T>(b, n, k) : along_k<T>(b, n, k);
        for (int i = 0; i < 2; ++i) *two[i] += a[i][k] * right;
      }
    }
  });
}

template <bool transposed_b, class T, int count>
void wgmma_m64k16(float (&d)[count], Descriptor a, Descriptor b, T, bool add,
                  Place place = Place::current()) {
  emulation::collective("wgmma_m64k16", place, 0xffffffffu, nullptr, nullptr);
  const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
  auto rows_of_a = [=] {
    TwoRows rows;
    for (int i = 0; i < 32; ++i) rows[i / 16][i % 16] = along_k<T>(a, row + i / 16 * 8, i % 16);
    return rows;
  };
  start_product<transposed_b, T>(d, rows_of_a, b, add, place);
}

// What a lane hands in of A, and the two rows that it gets.
struct RegisterRows {
  const unsigned* a;
  TwoRows rows;
};

template <class T>
void complete_rows(void* const* lanes) {
  for (int lane = 0; lane < 32; ++lane) {
    TwoRows& rows = static_cast<RegisterRows*>(lanes[lane])->rows;
    for (int i = 0; i < 32; ++i) {
      const int k = i % 16, from = lane / 4 * 4 + k % 8 / 2;
      const unsigned pair = static_cast<const RegisterRows*>(lanes[from])->a[i / 16 + k / 8 * 2];
      rows[i / 16][k] = element<T>(pair, k % 2);
    }
  }
}

template <bool transposed_b, class T, int count>
void wgmma_m64k16(float (&d)[count], const unsigned (&a)[4], Descriptor b, T, bool add,
                  Place place = Place::current()) {
  RegisterRows own{a, {}};
  emulation::collective("wgmma_m64k16", place, 0xffffffffu, &own, complete_rows<T>);
  start_product<transposed_b, T>(d, [rows = own.rows] { return rows; }, b, add, place);
}

}  // namespace dfc::cuda
