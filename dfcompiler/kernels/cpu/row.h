// Rows of a tensor as a sequence of vectors and a tail, computed in A and stored as T.
//
// A is T itself for float and double, and float for the 16-bit formats, which convert on the way.
#pragma once

#include <cstdint>
#include <type_traits>

#include "vec.h"

namespace dfc {

// The type in which sums over elements of T are kept.
template <class T>
using accumulator = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

template <class A, class T>
DFC_INLINE vec<A> load_row(const T* p) {
  if constexpr (std::is_same_v<A, T>) {
    return load(p);
  } else {
    vec<A> x;
    for (int i = 0; i < lanes<A>; ++i) x[i] = A(p[i]);
    return x;
  }
}

// The first `count` elements; the other lanes hold `fill`.
template <class A, class T>
DFC_INLINE vec<A> load_tail(const T* p, int count, A fill) {
  vec<A> x = splat(fill);
  if constexpr (std::is_same_v<A, T>) {
    __builtin_memcpy(&x, p, std::size_t(count) * sizeof(T));
  } else {
    for (int i = 0; i < count; ++i) x[i] = A(p[i]);
  }
  return x;
}

template <class T, class A>
DFC_INLINE void store_row(T* p, vec<A> x) {
  if constexpr (std::is_same_v<A, T>) {
    store(p, x);
  } else {
    for (int i = 0; i < lanes<A>; ++i) p[i] = T(x[i]);
  }
}

template <class T, class A>
DFC_INLINE void store_tail(T* p, vec<A> x, int count) {
  if constexpr (std::is_same_v<A, T>) {
    store_first(p, x, count);
  } else {
    for (int i = 0; i < count; ++i) p[i] = T(x[i]);
  }
}

// combine(...combine(initial, f(x[0..L))), …, f(x[n-L..n))) over the vectors of a row in four
// chains, so that the latency of one combination does not bound the loop; tail lanes hold `fill`.
template <class A, class T, class Map, class Combine>
DFC_INLINE vec<A> fold_row(const T* x, std::int64_t n, vec<A> initial, A fill, Map map,
                           Combine combine) {
  constexpr int L = lanes<A>;
  vec<A> a = initial, b = initial, c = initial, d = initial;
  std::int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    a = combine(a, map(load_row<A>(x + i)));
    b = combine(b, map(load_row<A>(x + i + L)));
    c = combine(c, map(load_row<A>(x + i + 2 * L)));
    d = combine(d, map(load_row<A>(x + i + 3 * L)));
  }
  for (; i + L <= n; i += L) a = combine(a, map(load_row<A>(x + i)));
  if (i < n) b = combine(b, map(load_tail<A>(x + i, int(n - i), fill)));
  return combine(combine(a, b), combine(c, d));
}

// o[i] = f(i, x[i]) over the vectors of a row; `f` also gets the number of valid lanes.
template <class A, class T, class Map>
DFC_INLINE void map_row(T* o, const T* x, std::int64_t n, Map map) {
  constexpr int L = lanes<A>;
  std::int64_t i = 0;
  for (; i + L <= n; i += L) store_row<T, A>(o + i, map(i, load_row<A>(x + i), L));
  if (i < n) {
    const int rest = int(n - i);
    store_tail<T, A>(o + i, map(i, load_tail<A>(x + i, rest, A(0)), rest), rest);
  }
}

// A vector of a parameter (scale, bias) beside a row: whole, or its tail.
template <class A, class T>
DFC_INLINE vec<A> load_lanes(const T* p, int count) {
  return count == lanes<A> ? load_row<A>(p) : load_tail<A>(p, count, A(0));
}

}  // namespace dfc
