// Rotary position embedding of the pairs of 16 bytes of a row by one thread.
//
//   halves        x: │ a₀ a₁ … │ b₀ b₁ … │      a thread has 16 bytes of a and the same of b
//   interleaved   x: │ a₀ b₀ a₁ b₁ …     │      a thread has 16 bytes of pairs
//
// Bytes: x is read once and written once; the angles of a position are read by all its heads, from
// the L1 or L2 but for the first of them. The four loads of a thread are under way together: whether
// they are whole packs is decided once.
#pragma once

#include "row_packs.h"

namespace dfc {

namespace rows {

template <class T, class C, class Count>
__device__ inline void rotate_halves(T* o, const T* x, const C* cos, const C* sin,
                                     std::int64_t half, Count count) {
  constexpr int V = PACK<T>;
  accumulator<T> a[V], b[V], c[V], s[V], left[V], right[V];
  load_pack(a, x, count);
  load_pack(b, x + half, count);
  load_pack(c, cos, count);
  load_pack(s, sin, count);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    left[e] = a[e] * c[e] - b[e] * s[e];
    right[e] = b[e] * c[e] + a[e] * s[e];
  }
  store_pack(o, left, count);
  store_pack(o + half, right, count);
}

// `all` are the elements of x, `count` the pairs.
template <class T, class C, class All, class Count>
__device__ inline void rotate_interleaved(T* o, const T* x, const C* cos, const C* sin, All all,
                                          Count count) {
  constexpr int V = PACK<T>, PAIRS = V / 2;
  accumulator<T> pairs[V], c[PAIRS], s[PAIRS], rotated[V];
  load_pack(pairs, x, all);
  load_pack(c, cos, count);
  load_pack(s, sin, count);
#pragma unroll
  for (int e = 0; e < PAIRS; ++e) {
    const auto a = pairs[2 * e], b = pairs[2 * e + 1];
    rotated[2 * e] = a * c[e] - b * s[e];
    rotated[2 * e + 1] = b * c[e] + a * s[e];
  }
  store_pack(o, rotated, all);
}

}  // namespace rows

// Pairs (x[i], x[i + half]) of the elements of pack `pack` of the first half.
template <class T, class C>
__device__ inline void rotary_halves(T* o, const T* x, const C* cos, const C* sin,
                                     std::int64_t half, std::int64_t pack) {
  constexpr int V = rows::PACK<T>;
  const std::int64_t i = pack * V;
  if (half % V == 0 && rows::are_aligned(o, x, cos, sin)) {
    rows::rotate_halves(o + i, x + i, cos + i, sin + i, half, rows::Whole{});
  } else {
    const int count = half - i < V ? int(half - i) : V;
    rows::rotate_halves(o + i, x + i, cos + i, sin + i, half, count);
  }
}

// Pairs (x[2i], x[2i + 1]) of pack `pack` of the row.
template <class T, class C>
__device__ inline void rotary_interleaved(T* o, const T* x, const C* cos, const C* sin,
                                          std::int64_t half, std::int64_t pack) {
  constexpr int PAIRS = rows::PACK<T> / 2;
  const std::int64_t i = pack * PAIRS;
  if (half % PAIRS == 0 && rows::are_aligned(o, x, cos, sin)) {
    const rows::Whole all;
    rows::rotate_interleaved(o + 2 * i, x + 2 * i, cos + i, sin + i, all, all);
  } else {
    const int count = half - i < PAIRS ? int(half - i) : PAIRS;
    rows::rotate_interleaved(o + 2 * i, x + 2 * i, cos + i, sin + i, 2 * count, count);
  }
}

}  // namespace dfc
