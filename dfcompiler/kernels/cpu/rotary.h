// Rotary position embedding of one row of 2 · half elements by half angles.
#pragma once

#include <cstdint>

#include "row.h"

namespace dfc {

// Pairs (x[i], x[i + half]).
template <class T>
DFC_INLINE void rotary_halves(T* __restrict__ o, const T* __restrict__ x,
                              const T* __restrict__ cos, const T* __restrict__ sin,
                              std::int64_t half) {
  using A = accumulator<T>;
  for (std::int64_t i = 0; i < half; ++i) {
    const A a = x[i], b = x[i + half], c = cos[i], s = sin[i];
    o[i] = T(a * c - b * s);
    o[i + half] = T(b * c + a * s);
  }
}

// Pairs (x[2i], x[2i + 1]).
template <class T>
DFC_INLINE void rotary_interleaved(T* __restrict__ o, const T* __restrict__ x,
                                   const T* __restrict__ cos, const T* __restrict__ sin,
                                   std::int64_t half) {
  using A = accumulator<T>;
  for (std::int64_t i = 0; i < half; ++i) {
    const A a = x[2 * i], b = x[2 * i + 1], c = cos[i], s = sin[i];
    o[2 * i] = T(a * c - b * s);
    o[2 * i + 1] = T(b * c + a * s);
  }
}

}  // namespace dfc
