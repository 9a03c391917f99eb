// Softmax, layer and RMS normalization of one row by the threads that share it.
//
//     row_packs.h:  a row in registers, read once     block_fold.h:  sums and maxima of a team
//
//     softmax    maximum ─▶ Σ weights ─▶ o            every arrow is a team_fold of what the
//     layer      mean ─▶ variance ─▶ o                threads have in registers
//     RMS        mean square ─▶ o
//
// Bytes: the row is read once and written once. The mean, the deviations from it (two-pass
// statistics, as on the CPU) and the result come from registers. At 2 or 3 operations for each byte
// the memory is the bound, if enough loads are under way: rows of up to 1024 elements belong to a
// warp or a part of one, several rows to a block, and no barrier is met.
//
// All threads of the row's team call these functions, with the same arguments.
#pragma once

#include <limits>

#include "block_fold.h"
#include "math.h"
#include "row_packs.h"

namespace dfc {
namespace rows {

// A parameter beside a pack of a row: `otherwise` where there is none.
template <class A, int V, class G, class Count>
__device__ inline void load_parameter(A (&values)[V], const G* p, std::int64_t i, Count count,
                                      A otherwise) {
  if (p) {
    load_pack(values, p + i, count);
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e) values[e] = otherwise;
  }
}

}  // namespace rows

// o = exp(x - max x) / Σ exp(x - max x). A row of -inf alone gives NaN, as in numpy; o may be x.
template <class T, class Row>
__device__ void softmax_row(T* o, const Row& row, std::int64_t n) {
  using A = accumulator<T>;
  constexpr A lowest = -std::numeric_limits<A>::infinity();
  const auto body = [&](auto& x, auto) {
    const A peak = rows::team_fold<Row::THREADS>(x.fold(lowest, rows::Same{}, rows::Greater{}),
                                                 lowest, rows::Greater{});
    const auto weight = [peak](A value) { return exp_nonpositive(value - peak); };
    const A total = rows::team_fold<Row::THREADS>(x.fold_in_place(A(0), weight, rows::Add{}), A(0),
                                                  rows::Add{});
    const A scale = A(1) / total;
    x.store(o, [&](auto& y, const auto& values, std::int64_t, auto, auto held) {
#pragma unroll
      for (int e = 0; e < rows::PACK<T>; ++e) {
        if constexpr (held) y[e] = values[e] * scale;
        else y[e] = weight(values[e]) * scale;
      }
    });
  };
  rows::hold<T>(row, n, body, o);
}

// o = (x - mean x) / sqrt(var x + epsilon) · gamma + beta; gamma and beta may be null, o may be x.
template <class T, class Row, class G>
__device__ void layer_norm_row(T* o, const Row& row, const G* gamma, const G* beta, std::int64_t n,
                               accumulator<T> epsilon) {
  using A = accumulator<T>;
  const auto body = [&](auto& x, auto) {
    const rows::Add add;
    const A mean =
        rows::team_fold<Row::THREADS>(x.fold(A(0), rows::Same{}, add), A(0), add) / A(n);
    const auto square = [mean](A value) { return (value - mean) * (value - mean); };
    const A variance = rows::team_fold<Row::THREADS>(x.fold(A(0), square, add), A(0), add) / A(n);
    const A scale = rsqrt(variance + epsilon);
    x.store(o, [&](auto& y, const auto& values, std::int64_t i, auto count, auto) {
      A factors[rows::PACK<T>], shifts[rows::PACK<T>];
      rows::load_parameter(factors, gamma, i, count, A(1));
      rows::load_parameter(shifts, beta, i, count, A(0));
#pragma unroll
      for (int e = 0; e < rows::PACK<T>; ++e)
        y[e] = (values[e] - mean) * scale * factors[e] + shifts[e];
    });
  };
  rows::hold<T>(row, n, body, o, gamma, beta);
}

// o = x / sqrt(mean x² + epsilon) · gamma; gamma may be null, o may be x.
template <class T, class Row, class G>
__device__ void rms_norm_row(T* o, const Row& row, const G* gamma, std::int64_t n,
                             accumulator<T> epsilon) {
  using A = accumulator<T>;
  const auto body = [&](auto& x, auto) {
    const rows::Add add;
    const auto square = [](A value) { return value * value; };
    const A mean = rows::team_fold<Row::THREADS>(x.fold(A(0), square, add), A(0), add) / A(n);
    const A scale = rsqrt(mean + epsilon);
    x.store(o, [&](auto& y, const auto& values, std::int64_t i, auto count, auto) {
      A factors[rows::PACK<T>];
      rows::load_parameter(factors, gamma, i, count, A(1));
#pragma unroll
      for (int e = 0; e < rows::PACK<T>; ++e) y[e] = values[e] * scale * factors[e];
    });
  };
  rows::hold<T>(row, n, body, o, gamma);
}

// Softmax of n elements, `stride` apart, by one thread: its neighbours have the rows beside, so
// that each step of all of them reads memory in order.
template <class T>
__device__ void softmax_strided(T* o, std::int64_t o_stride, const T* x, std::int64_t x_stride,
                                std::int64_t n) {
  using A = accumulator<T>;
  A peak = -std::numeric_limits<A>::infinity(), total = 0;
  for (std::int64_t i = 0; i < n; ++i) peak = maximum(peak, A(x[i * x_stride]));
  for (std::int64_t i = 0; i < n; ++i) total += exp_nonpositive(A(x[i * x_stride]) - peak);
  const A scale = A(1) / total;
  for (std::int64_t i = 0; i < n; ++i)
    o[i * o_stride] = T(exp_nonpositive(A(x[i * x_stride]) - peak) * scale);
}

}  // namespace dfc
