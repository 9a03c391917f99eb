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

  static DFC_INLINE bool hides(T m) { return m == lowest<T>; }
  static DFC_INLINE vec_index<T> touches(vec<T> m) { return m != T(0); }
  static DFC_INLINE vec_index<T> shows(vec<T> m) { return m != lowest<T>; }
  static DFC_INLINE vec<T> apply(vec<T> x, vec<T> m) { return x + m; }
};

// Scores where the mask is true, minus infinity elsewhere.
template <class T>
struct BoolMask {
  using element = std::int8_t;
  static constexpr bool active = true;
  const std::int8_t* data;
  long row_stride, column_stride, head_stride;

  static DFC_INLINE bool hides(std::int8_t m) { return m == 0; }
  static DFC_INLINE vec_index<T> touches(vec<T> m) { return m == T(0); }
  static DFC_INLINE vec_index<T> shows(vec<T> m) { return m != T(0); }
  static DFC_INLINE vec<T> apply(vec<T> x, vec<T> m) { return m != T(0) ? x : splat(lowest<T>); }
};

// `count` elements of a mask's row; the other lanes are as the first.
template <class T, class M>
DFC_INLINE vec<T> mask_lanes(const M* p, long stride, int count) {
  if (stride == 0) return splat<T>(T(*p));
  if (stride == 1 && count == lanes<T>) return load_as<T>(p);
  vec<T> x = splat<T>(T(*p));
  for (int i = 1; i < count; ++i) x[i] = T(p[i * stride]);
  return x;
}

// What a mask does to a block of scores: nothing, something, or all of them are hidden.
enum class Cover { clear, mixed, hidden };

// Collects what a mask does, row by row.
template <class T, class Mask>
class Survey {
 public:
  void add(const typename Mask::element* row, long stride, long count) {
    constexpr int L = lanes<T>;
    for (long i = 0; i < count; i += L) {
      const vec<T> m = mask_lanes<T>(row + i * stride, stride, int(count - i < L ? count - i : L));
      touched_ |= Mask::touches(m);
      shown_ |= Mask::shows(m);
    }
  }

  Cover cover() const {
    bool touched = false, shown = false;
    for (int i = 0; i < lanes<T>; ++i) {
      touched |= touched_[i] != 0;
      shown |= shown_[i] != 0;
    }
    return !touched ? Cover::clear : shown ? Cover::mixed : Cover::hidden;
  }

 private:
  vec_index<T> touched_{}, shown_{};
};

}  // namespace dfc::attention
