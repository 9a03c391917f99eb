// Reductions of rows and of columns, arg-max, running sums.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "elementwise.h"
#include "row.h"

namespace dfc {

struct Sum {
  template <class A>
  static constexpr A identity = A(0);
  template <class V>
  static DFC_INLINE V combine(V a, V b) {
    return a + b;
  }
};

struct Product {
  template <class A>
  static constexpr A identity = A(1);
  template <class V>
  static DFC_INLINE V combine(V a, V b) {
    return a * b;
  }
};

struct Maximum {
  template <class A>
  static constexpr A identity = least<A>;
  template <class V>
  static DFC_INLINE V combine(V a, V b) {
    return maximum(a, b);
  }
};

struct Minimum {
  template <class A>
  static constexpr A identity = greatest<A>;
  template <class V>
  static DFC_INLINE V combine(V a, V b) {
    return minimum(a, b);
  }
};

// One result: rows are added to vector accumulators, which `value` combines.
template <class Op, class A>
struct RowReduction {
  vec<A> lanes_ = splat(Op::template identity<A>);

  template <class T>
  DFC_INLINE void add(const T* x, std::int64_t n) {
    lanes_ = Op::combine(lanes_, fold_row<A>(
                                     x, n, splat(Op::template identity<A>),
                                     Op::template identity<A>, [](vec<A> v) { return v; },
                                     [](vec<A> a, vec<A> b) { return Op::combine(a, b); }));
  }

  DFC_INLINE A value() const {
    A total = lanes_[0];
    for (int i = 1; i < lanes<A>; ++i) total = Op::combine(total, A(lanes_[i]));
    return total;
  }
};

// Columns that one accumulator block holds: four vectors.
template <class A>
inline constexpr int column_block = 4 * lanes<A>;

// Up to column_block<A> results beside each other: rows of `width` elements are added.
template <class Op, class A>
struct ColumnReduction {
  vec<A> lanes_[4];

  ColumnReduction() {
    for (auto& v : lanes_) v = splat(Op::template identity<A>);
  }

  template <class T>
  DFC_INLINE void add(const T* x, int width) {
    constexpr int L = lanes<A>;
    if (width == column_block<A>) {
      for (int i = 0; i < 4; ++i) lanes_[i] = Op::combine(lanes_[i], load_row<A>(x + i * L));
      return;
    }
    for (int i = 0; i < 4; ++i) {
      const int count = width - i * L < L ? width - i * L : L;
      if (count <= 0) break;
      lanes_[i] = Op::combine(lanes_[i],
                              load_tail<A>(x + i * L, count, Op::template identity<A>));
    }
  }

  DFC_INLINE A value(int i) const { return lanes_[i / lanes<A>][i % lanes<A>]; }
};

// The position of the first greatest element; the first NaN counts as greatest.
template <class T>
std::int64_t argmax_row(const T* x, std::int64_t stride, std::int64_t n) {
  using A = std::conditional_t<std::is_same_v<T, bool>, unsigned char, accumulator<T>>;
  A best = A(x[0]);
  if constexpr (std::is_same_v<A, T>) {
    if (stride == 1) {
      RowReduction<Maximum, A> reduction;
      reduction.add(x, n);
      best = reduction.value();
      std::int64_t i = 0;
      for (; i + lanes<A> <= n; i += lanes<A>) {
        const vec<A> v = load(x + i);
        const auto hit = (v == best) | (v != v);
        int any = 0;
        for (int j = 0; j < lanes<A>; ++j) any |= hit[j] != 0;
        if (any) break;
      }
      for (; i < n; ++i) {
        if ((x[i] == best) | (x[i] != x[i])) return i;
      }
      return 0;
    }
  }
  std::int64_t found = 0;
  for (std::int64_t i = 1; i < n; ++i) {
    const A value = A(x[i * stride]);
    const bool better = (value > best) | ((value != value) & (best == best));
    best = better ? value : best;
    found = better ? i : found;
  }
  return found;
}

template <class T>
void cumsum_row(T* o, std::int64_t o_stride, const T* x, std::int64_t x_stride, std::int64_t n) {
  accumulator<T> total = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_integral_v<T>) {
      total = add(total, x[i * x_stride]);
    } else {
      total += x[i * x_stride];
    }
    o[i * o_stride] = T(total);
  }
}

}  // namespace dfc
