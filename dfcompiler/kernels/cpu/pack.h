// Copies of matrix parts into the order that register tiles read.
#pragma once

#include <algorithm>
#include <type_traits>

#include "vec.h"

namespace dfc {

namespace detail {

// Which lanes of two vectors a butterfly step of width S puts together.
template <class T, int S>
DFC_INLINE void butterfly(vec_index<T>& low, vec_index<T>& high) {
  constexpr int L = lanes<T>;
#pragma GCC unroll 16
  for (int j = 0; j < L; ++j) {
    low[j] = j & S ? L + j - S : j;
    high[j] = j & S ? L + j : j + S;
  }
}

// One butterfly step: exchanges S × S blocks across the diagonal between rows i and i + S.
template <class T, int S>
DFC_INLINE void exchange(vec<T> (&x)[lanes<T>]) {
  constexpr int L = lanes<T>;
  vec_index<T> low, high;
  butterfly<T, S>(low, high);
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

// to[c, r] = from[r, c] for one square of a vector's width, in registers; rows of `from` that are
// not there count as zeros.
template <class T>
DFC_OUTLINE void transpose_square(const T* from, long from_stride, int rows, T* to, long to_stride) {
  constexpr int L = lanes<T>;
  static constexpr T zeros[L] = {};
  vec<T> x[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) x[i] = load(i < rows ? from + i * from_stride : zeros);
  detail::exchange<T, L / 2>(x);
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) store(to + i * to_stride, x[i]);
}

// to[r, c] = from[r·row_stride + c·column_stride], `to` row-major with rows of `to_stride`; columns
// from `columns` to `padded` become zero. Converts the elements where the types differ.
template <class T, class S>
DFC_OUTLINE void pack(const S* from, long row_stride, long column_stride, long rows, long columns,
                      T* to, long to_stride, long padded) {
  constexpr int L = lanes<T>;
  long whole_rows = 0;  // already written, up to column `done`
  long done = 0;
  if constexpr (std::is_same_v<T, S>) {
    if (row_stride == 1 && column_stride != 1) {
      whole_rows = rows / L * L;
      for (; done < columns && done + L <= padded; done += L)
        for (long r = 0; r < whole_rows; r += L)
          transpose_square(from + done * column_stride + r, column_stride,
                           int(std::min<long>(L, columns - done)), to + r * to_stride + done,
                           to_stride);
    }
  }
  for (long r = 0; r < rows; ++r) {
    const S* source = from + r * row_stride;
    T* target = to + r * to_stride;
    long c = r < whole_rows ? done : 0;
    if (column_stride == 1)
      for (; c + L <= columns; c += L) store(target + c, load_as<T>(source + c));
    for (; c < columns; ++c) target[c] = T(source[c * column_stride]);
    for (; c < padded; ++c) target[c] = T(0);
  }
}

}  // namespace dfc
