// Copies of rows and checked indices, for the tasklets of data movement.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vec.h"

namespace dfc {

// `index` as a position in 0..extent, negative ones counted from the end. A bad one is reported
// once, in `status` = {1 + site, index}, and stands for position 0.
template <class I>
DFC_INLINE std::int64_t checked(I index, std::int64_t extent, std::int64_t* status,
                                std::int64_t site) {
  std::int64_t position = std::int64_t(index);
  if constexpr (std::is_signed_v<I>) {
    position += position < 0 ? extent : 0;
  }
  if (__builtin_expect(std::uint64_t(position) < std::uint64_t(extent), 1)) return position;
  std::int64_t none = 0;
  if (__atomic_compare_exchange_n(&status[0], &none, 1 + site, false, __ATOMIC_RELAXED,
                                  __ATOMIC_RELAXED)) {
    status[1] = std::int64_t(index);
  }
  return 0;
}

// `count` elements, `from_stride` and `to_stride` apart.
template <class T>
DFC_INLINE void copy_row(T* __restrict__ to, std::int64_t to_stride, const T* __restrict__ from,
                         std::int64_t from_stride, std::int64_t count) {
  if (to_stride == 1 && from_stride == 1) {
    std::memcpy(to, from, std::size_t(count) * sizeof(T));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) to[i * to_stride] = from[i * from_stride];
}

// Elements [block · size, (block + 1) · size) of an array of `count`.
template <class T>
DFC_INLINE void copy_block(T* __restrict__ to, const T* __restrict__ from, std::int64_t block,
                           std::int64_t size, std::int64_t count) {
  const std::int64_t start = block * size;
  const std::int64_t rest = count - start;
  std::memcpy(to + start, from + start, std::size_t(rest < size ? rest : size) * sizeof(T));
}

// to[r · to_stride + c] = from[c · from_stride + r] for r < rows <= 16, c < columns: a strip whose
// rows lie contiguous in the result and whose columns lie contiguous in the source.
//
//   from  ┌ 16 ┐         to  ┌──── columns ────┐
//         │    │  columns  → │                 │ 16
//         └────┘             └─────────────────┘
template <class T>
void transpose_strip(T* __restrict__ to, std::int64_t to_stride, const T* __restrict__ from,
                     std::int64_t from_stride, int rows, std::int64_t columns) {
  constexpr int tile = 16;
  std::int64_t c = 0;
  if (rows == tile) {
    for (; c + tile <= columns; c += tile) {
      T block[tile][tile];
      for (int j = 0; j < tile; ++j) {
        for (int i = 0; i < tile; ++i) block[i][j] = from[(c + j) * from_stride + i];
      }
      for (int i = 0; i < tile; ++i) {
        std::memcpy(to + i * to_stride + c, block[i], sizeof(block[i]));
      }
    }
  }
  for (; c < columns; ++c) {
    for (int i = 0; i < rows; ++i) to[i * to_stride + c] = from[c * from_stride + i];
  }
}

}  // namespace dfc
