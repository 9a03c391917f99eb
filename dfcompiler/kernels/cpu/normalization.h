// Softmax, layer normalization and RMS normalization of one row.
//
// A row is read two or three times and written once; it stays in the first-level cache between
// the passes, so memory sees one read and one write. Statistics are exact two-pass ones: the
// variance is the mean of squared deviations from the mean, not a difference of large sums.
#pragma once

#include <cstdint>
#include <limits>

#include "elementwise.h"
#include "row.h"

namespace dfc {

template <class A>
DFC_INLINE A horizontal_max(vec<A> x) {
  A best = x[0];
  for (int i = 1; i < lanes<A>; ++i) best = maximum(best, x[i]);
  return best;
}

// o = exp(x - max x) / Σ exp(x - max x). A row of -inf alone gives NaN, as in numpy.
template <class T>
void softmax_row(T* __restrict__ o, const T* __restrict__ x, std::int64_t n) {
  using A = accumulator<T>;
  constexpr int L = lanes<A>;
  constexpr A lowest = -std::numeric_limits<A>::infinity();
  const A peak = horizontal_max<A>(fold_row<A>(
      x, n, splat(lowest), lowest, [](vec<A> v) { return v; },
      [](vec<A> a, vec<A> b) { return maximum(a, b); }));
  vec<A> total{}, other{};
  std::int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    const vec<A> e = exp_nonpositive(load_row<A>(x + i) - peak);
    const vec<A> f = exp_nonpositive(load_row<A>(x + i + L) - peak);
    store_row<T, A>(o + i, e);
    store_row<T, A>(o + i + L, f);
    total += e;
    other += f;
  }
  for (; i < n; i += L) {
    const int rest = n - i < L ? int(n - i) : L;
    const vec<A> v = rest == L ? load_row<A>(x + i) : load_tail<A>(x + i, rest, lowest);
    // The lanes behind the row must not add NaN when the peak is -inf.
    const vec<A> e = exp_nonpositive(v - peak);
    if (rest == L) {
      store_row<T, A>(o + i, e);
      total += e;
    } else {
      store_tail<T, A>(o + i, e, rest);
      for (int j = 0; j < rest; ++j) total[j] += e[j];
    }
  }
  const A scale = A(1) / reduce_add<A>(total + other);
  map_row<A>(o, o, n, [scale](std::int64_t, vec<A> v, int) { return v * scale; });
}

// Softmax of n elements, `stride` apart.
template <class T>
void softmax_strided(T* __restrict__ o, std::int64_t o_stride, const T* __restrict__ x,
                     std::int64_t x_stride, std::int64_t n) {
  using A = accumulator<T>;
  A peak = -std::numeric_limits<A>::infinity(), total = 0;
  for (std::int64_t i = 0; i < n; ++i) peak = maximum(peak, A(x[i * x_stride]));
  for (std::int64_t i = 0; i < n; ++i) total += exp_nonpositive(A(x[i * x_stride]) - peak);
  const A scale = A(1) / total;
  for (std::int64_t i = 0; i < n; ++i) {
    o[i * o_stride] = T(exp_nonpositive(A(x[i * x_stride]) - peak) * scale);
  }
}

// o = (x - mean x) / sqrt(var x + epsilon) · gamma + beta; gamma and beta may be null, o may be x.
template <class T>
void layer_norm_row(T* o, const T* x, const T* __restrict__ gamma,
                    const T* __restrict__ beta, std::int64_t n, accumulator<T> epsilon) {
  using A = accumulator<T>;
  const auto add = [](vec<A> a, vec<A> b) { return a + b; };
  const A mean = reduce_add<A>(fold_row<A>(
                     x, n, vec<A>{}, A(0), [](vec<A> v) { return v; }, add)) / A(n);
  // Filled with the mean, the lanes behind the row have no deviation.
  const A variance = reduce_add<A>(fold_row<A>(
                         x, n, vec<A>{}, mean,
                         [mean](vec<A> v) { return (v - mean) * (v - mean); }, add)) / A(n);
  const A scale = rsqrt(variance + epsilon);
  map_row<A>(o, x, n, [=](std::int64_t i, vec<A> v, int count) {
    vec<A> y = (v - mean) * scale;
    if (gamma) y *= load_lanes<A>(gamma + i, count);
    if (beta) y += load_lanes<A>(beta + i, count);
    return y;
  });
}

// o = x / sqrt(mean x² + epsilon) · gamma; gamma may be null, o may be x.
template <class T>
void rms_norm_row(T* o, const T* x, const T* __restrict__ gamma,
                  std::int64_t n, accumulator<T> epsilon) {
  using A = accumulator<T>;
  const A square = reduce_add<A>(fold_row<A>(
                       x, n, vec<A>{}, A(0), [](vec<A> v) { return v * v; },
                       [](vec<A> a, vec<A> b) { return a + b; })) / A(n);
  const A scale = rsqrt(square + epsilon);
  map_row<A>(o, x, n, [=](std::int64_t i, vec<A> v, int count) {
    vec<A> y = v * scale;
    if (gamma) y *= load_lanes<A>(gamma + i, count);
    return y;
  });
}

}  // namespace dfc
