// Softmax, layer and RMS normalization of one row by the threads of one block.
//
//     row_packs.h:  a row in registers, read once     block_fold.h:  sums and maxima of the block
//
//     softmax    maximum ─▶ Σ weights ─▶ o            every arrow is a block_fold of what the
//     layer      mean ─▶ variance ─▶ o                threads have in registers
//     RMS        mean square ─▶ o
//
// Bytes: the row is read once and written once. The mean, the deviations from it (two-pass
// statistics, as on the CPU) and the result come from registers. At 2 or 3 operations for each byte
// the memory is the bound.
//
// All threads of the block call these functions, with the same arguments; their number is a
// multiple of 32.
#pragma once

#include <limits>

#include "block_fold.h"
#include "math.h"
#include "row_packs.h"

namespace dfc {
namespace rows {

// A parameter beside a pack of a row: `otherwise` where there is none.
template <class A, int V, class G>
__device__ inline void load_parameter(A (&values)[V], const G* p, std::int64_t i, int count,
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
  const auto source = rows::source_of(row);
  const rows::Held<T, decltype(source)> x(source, n);
  const A peak = rows::block_fold(x.fold(lowest, rows::Same{}, rows::Greater{}), lowest,
                                  rows::Greater{});
  const auto weight = [peak](A value) { return exp_nonpositive(value - peak); };
  const A total = rows::block_fold(x.fold(A(0), weight, rows::Add{}), A(0), rows::Add{});
  const A scale = A(1) / total;
  x.store(o, [&](auto& y, const auto& values, std::int64_t, int) {
#pragma unroll
    for (int e = 0; e < rows::PACK<T>; ++e) y[e] = weight(values[e]) * scale;
  });
}

// o = (x - mean x) / sqrt(var x + epsilon) · gamma + beta; gamma and beta may be null, o may be x.
template <class T, class Row, class G>
__device__ void layer_norm_row(T* o, const Row& row, const G* gamma, const G* beta, std::int64_t n,
                               accumulator<T> epsilon) {
  using A = accumulator<T>;
  const auto source = rows::source_of(row);
  const rows::Held<T, decltype(source)> x(source, n);
  const rows::Add add;
  const A mean = rows::block_fold(x.fold(A(0), rows::Same{}, add), A(0), add) / A(n);
  const auto square = [mean](A value) { return (value - mean) * (value - mean); };
  const A variance = rows::block_fold(x.fold(A(0), square, add), A(0), add) / A(n);
  const A scale = rsqrt(variance + epsilon);
  x.store(o, [&](auto& y, const auto& values, std::int64_t i, int count) {
    A factors[rows::PACK<T>], shifts[rows::PACK<T>];
    rows::load_parameter(factors, gamma, i, count, A(1));
    rows::load_parameter(shifts, beta, i, count, A(0));
#pragma unroll
    for (int e = 0; e < rows::PACK<T>; ++e)
      y[e] = (values[e] - mean) * scale * factors[e] + shifts[e];
  });
}

// o = x / sqrt(mean x² + epsilon) · gamma; gamma may be null, o may be x.
template <class T, class Row, class G>
__device__ void rms_norm_row(T* o, const Row& row, const G* gamma, std::int64_t n,
                             accumulator<T> epsilon) {
  using A = accumulator<T>;
  const auto source = rows::source_of(row);
  const rows::Held<T, decltype(source)> x(source, n);
  const rows::Add add;
  const auto square = [](A value) { return value * value; };
  const A mean = rows::block_fold(x.fold(A(0), square, add), A(0), add) / A(n);
  const A scale = rsqrt(mean + epsilon);
  x.store(o, [&](auto& y, const auto& values, std::int64_t i, int count) {
    A factors[rows::PACK<T>];
    rows::load_parameter(factors, gamma, i, count, A(1));
#pragma unroll
    for (int e = 0; e < rows::PACK<T>; ++e) y[e] = values[e] * scale * factors[e];
  });
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
