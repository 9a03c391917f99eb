// What hides keys from queries: masks of numbers, of truth values, and the diagonal.
#pragma once

#include <limits>
#include <type_traits>

#include "vec.h"

namespace dfc::attention {

template <class T>
inline constexpr T lowest = -std::numeric_limits<T>::infinity();

struct NoMask {
  using element = char;
  static constexpr bool active = false;
  long head_stride = 0, row_stride = 0;
  template <class V>
  static DFC_INLINE V apply(V x, V) {
    return x;
  }
};

// scores + mask.
template <class T>
struct AdditiveMask {
  using element = T;
  static constexpr bool active = true;
  const T* data;
  long row_stride, column_stride, head_stride;

  static DFC_INLINE bool clear(T m) { return m == T(0); }
  static DFC_INLINE bool hides(T m) { return m == lowest<T>; }
  static DFC_INLINE vec<T> apply(vec<T> x, vec<T> m) { return x + m; }
};

// Scores where the mask is true, minus infinity elsewhere.
template <class T>
struct BoolMask {
  using element = std::int8_t;
  static constexpr bool active = true;
  const std::int8_t* data;
  long row_stride, column_stride, head_stride;

  static DFC_INLINE bool clear(std::int8_t m) { return m != 0; }
  static DFC_INLINE bool hides(std::int8_t m) { return m == 0; }
  static DFC_INLINE vec<T> apply(vec<T> x, vec<T> m) { return m != T(0) ? x : splat(lowest<T>); }
};

// `count` elements of a mask's row; the other lanes are zero.
template <class T, class M>
DFC_INLINE vec<T> mask_lanes(const M* p, long stride, int count) {
  if (stride == 0) return splat<T>(T(*p));
  if (stride == 1 && count == lanes<T>) return load_as<T>(p);
  vec<T> x{};
  for (int i = 0; i < count; ++i) x[i] = T(p[i * stride]);
  return x;
}

// What a mask does to a block of scores: nothing, something, or all of them are hidden.
enum class Cover { clear, mixed, hidden };

template <class Mask, class M>
Cover cover_of(const M* row, long stride, long count) {
  long clear = 0, hidden = 0;
  if (stride == 1) {
    for (long i = 0; i < count; ++i) {
      clear += Mask::clear(row[i]);
      hidden += Mask::hides(row[i]);
    }
  } else {
    for (long i = 0; i < count; ++i) {
      clear += Mask::clear(row[i * stride]);
      hidden += Mask::hides(row[i * stride]);
    }
  }
  return clear == count ? Cover::clear : hidden == count ? Cover::hidden : Cover::mixed;
}

}  // namespace dfc::attention
