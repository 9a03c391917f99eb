// Copies of matrix parts into the order that register tiles read.
#pragma once

#include "vec.h"

namespace dfc {

namespace detail {

// One butterfly step: exchanges S × S blocks across the diagonal between rows i and i + S.
template <class T, int S>
DFC_INLINE void exchange(vec<T> (&x)[lanes<T>]) {
  constexpr int L = lanes<T>;
  vec_index<T> low, high;
#pragma GCC unroll 16
  for (int j = 0; j < L; ++j) {
    low[j] = j & S ? L + j - S : j;
    high[j] = j & S ? L + j : j + S;
  }
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i)
    if (!(i & S)) {
      const vec<T> a = x[i], b = x[i + S];
      x[i] = shuffle<T>(a, b, low);
      x[i + S] = shuffle<T>(a, b, high);
    }
  if constexpr (S > 1) exchange<T, S / 2>(x);
}

}  // namespace detail

// to[c, r] = from[r, c] for one square of a vector's width, in registers.
template <class T>
[[gnu::noinline]] void transpose_square(const T* from, long from_stride, T* to, long to_stride) {
  constexpr int L = lanes<T>;
  vec<T> x[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) x[i] = load(from + i * from_stride);
  detail::exchange<T, L / 2>(x);
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) store(to + i * to_stride, x[i]);
}

// to[r, c] = from[r·row_stride + c·column_stride], `to` row-major with rows of `to_stride`; columns
// from `columns` to `padded` become zero. Converts the elements where the types differ.
template <class T, class S>
[[gnu::noinline]] void pack(const S* from, long row_stride, long column_stride, long rows,
                            long columns, T* to, long to_stride, long padded) {
  constexpr int L = lanes<T>;
  if (column_stride == 1) {
    for (long r = 0; r < rows; ++r) {
      const S* source = from + r * row_stride;
      T* target = to + r * to_stride;
      long c = 0;
      for (; c + L <= columns; c += L) store(target + c, load_as<T>(source + c));
      for (; c < columns; ++c) target[c] = T(source[c]);
    }
  } else {
    const bool squares = std::is_same_v<T, S> && row_stride == 1;
    const long square_rows = squares ? rows / L * L : 0;
    const long square_columns = squares ? columns / L * L : 0;
    if constexpr (std::is_same_v<T, S>)
      for (long c = 0; c < square_columns; c += L)
        for (long r = 0; r < square_rows; r += L)
          transpose_square(from + c * column_stride + r, column_stride, to + r * to_stride + c,
                           to_stride);
    for (long r = 0; r < rows; ++r)
      for (long c = r < square_rows ? square_columns : 0; c < columns; ++c)
        to[r * to_stride + c] = T(from[r * row_stride + c * column_stride]);
  }
  for (long r = 0; columns < padded && r < rows; ++r)
    for (long c = columns; c < padded; ++c) to[r * to_stride + c] = T(0);
}

}  // namespace dfc
