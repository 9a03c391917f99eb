// Rotary position embedding of the pairs of 16 bytes of a row by one thread.
//
//   halves        x: │ a₀ a₁ … │ b₀ b₁ … │      a thread has 16 bytes of a and the same of b
//   interleaved   x: │ a₀ b₀ a₁ b₁ …     │      a thread has 16 bytes of pairs
//
// Bytes: x is read once and written once; the angles of a position are read by all its heads, from
// the L1 or L2 but for the first of them.
#pragma once

#include "row_packs.h"

namespace dfc {

// Pairs (x[i], x[i + half]) of the elements of pack `pack` of the first half.
template <class T, class C>
__device__ inline void rotary_halves(T* o, const T* x, const C* cos, const C* sin,
                                     std::int64_t half, std::int64_t pack) {
  constexpr int V = rows::PACK<T>;
  const std::int64_t i = pack * V;
  const int count = half - i < V ? int(half - i) : V;
  accumulator<T> a[V], b[V], c[V], s[V], left[V], right[V];
  rows::load_pack(a, x + i, count);
  rows::load_pack(b, x + half + i, count);
  rows::load_pack(c, cos + i, count);
  rows::load_pack(s, sin + i, count);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    left[e] = a[e] * c[e] - b[e] * s[e];
    right[e] = b[e] * c[e] + a[e] * s[e];
  }
  rows::store_pack(o + i, left, count);
  rows::store_pack(o + half + i, right, count);
}

// Pairs (x[2i], x[2i + 1]) of pack `pack` of the row.
template <class T, class C>
__device__ inline void rotary_interleaved(T* o, const T* x, const C* cos, const C* sin,
                                          std::int64_t half, std::int64_t pack) {
  constexpr int V = rows::PACK<T>, PAIRS = V / 2;
  const std::int64_t i = pack * PAIRS;
  const int count = half - i < PAIRS ? int(half - i) : PAIRS;
  accumulator<T> pairs[V], c[PAIRS], s[PAIRS], rotated[V];
  rows::load_pack(pairs, x + 2 * i, 2 * count);
  rows::load_pack(c, cos + i, count);
  rows::load_pack(s, sin + i, count);
#pragma unroll
  for (int e = 0; e < PAIRS; ++e) {
    const auto a = pairs[2 * e], b = pairs[2 * e + 1];
    rotated[2 * e] = a * c[e] - b * s[e];
    rotated[2 * e + 1] = b * c[e] + a * s[e];
  }
  rows::store_pack(o + 2 * i, rotated, 2 * count);
}

}  // namespace dfc
