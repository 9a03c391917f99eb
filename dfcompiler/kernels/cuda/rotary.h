// Rotary position embedding of one pair of elements by one thread.
//
//   halves        x: │ a₀ a₁ … │ b₀ b₁ … │      thread i has (aᵢ, bᵢ): neighbours read neighbours
//   interleaved   x: │ a₀ b₀ a₁ b₁ …     │      thread i has (aᵢ, bᵢ): neighbours read pairs
//
// Bytes: x is read once and written once; the angles of a position are read by all its heads, from
// the L1 or L2 but for the first of them.
#pragma once

#include "rows.h"

namespace dfc {

template <class T, class C>
__device__ inline void rotate(T* a_to, T* b_to, T a_from, T b_from, C cosine, C sine) {
  using A = accumulator<T>;
  const A a = A(a_from), b = A(b_from), c = A(cosine), s = A(sine);
  *a_to = T(a * c - b * s);
  *b_to = T(b * c + a * s);
}

// The pair (x[i], x[i + half]).
template <class T, class C>
__device__ inline void rotary_halves(T* o, const T* x, const C* cos, const C* sin,
                                     std::int64_t half, std::int64_t i) {
  rotate(o + i, o + i + half, x[i], x[i + half], cos[i], sin[i]);
}

// The pair (x[2i], x[2i + 1]).
template <class T, class C>
__device__ inline void rotary_interleaved(T* o, const T* x, const C* cos, const C* sin,
                                          std::int64_t, std::int64_t i) {
  rotate(o + 2 * i, o + 2 * i + 1, x[2 * i], x[2 * i + 1], cos[i], sin[i]);
}

}  // namespace dfc
