// Neighbouring elements of one thread, moved in transactions of up to 16 bytes.
//
//    thread 0    thread 1    thread 2        V elements each: a warp moves 32·V elements that lie
//   ┌─┬─┬─┬─┐   ┌─┬─┬─┬─┐   ┌─┬─┬─┬─┐  …    together, in as few instructions as the hardware has
//   └─┴─┴─┴─┘   └─┴─┴─┴─┘   └─┴─┴─┴─┘
//
// Bytes: each element once. Where a pointer is not aligned to the transaction, or the array ends
// inside of the pack, elements move one by one.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "math.h"

namespace dfc::cuda {

template <int BYTES>
struct Transaction;
template <>
struct Transaction<1> {
  using type = std::uint8_t;
};
template <>
struct Transaction<2> {
  using type = std::uint16_t;
};
template <>
struct Transaction<4> {
  using type = std::uint32_t;
};
template <>
struct Transaction<8> {
  using type = uint2;
};
template <>
struct Transaction<16> {
  using type = uint4;
};

template <class T, int V>
struct Pack {
  static constexpr int BYTES = V * int(sizeof(T)), STEP = BYTES < 16 ? BYTES : 16;
  using Step = typename Transaction<STEP>::type;

  T value[V];

  static DFC_SCALAR bool moves_whole(const T* p, int count) {
    return count == V && (reinterpret_cast<std::uintptr_t>(p) & (STEP - 1)) == 0;
  }

  // The first `count` elements at p; the others are not set.
  DFC_SCALAR void load(const T* p, int count) {
    if (moves_whole(p, count)) {
#pragma unroll
      for (int i = 0; i < BYTES / STEP; ++i) {
        const Step bits = reinterpret_cast<const Step*>(p)[i];
        memcpy(reinterpret_cast<char*>(value) + i * STEP, &bits, STEP);
      }
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (i < count) value[i] = p[i];
      }
    }
  }

  DFC_SCALAR void store(T* p, int count) const {
    if (moves_whole(p, count)) {
#pragma unroll
      for (int i = 0; i < BYTES / STEP; ++i) {
        Step bits;
        memcpy(&bits, reinterpret_cast<const char*>(value) + i * STEP, STEP);
        reinterpret_cast<Step*>(p)[i] = bits;
      }
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (i < count) p[i] = value[i];
      }
    }
  }
};

}  // namespace dfc::cuda
