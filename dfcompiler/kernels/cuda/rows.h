// Softmax, layer and RMS normalization of one row by the threads of one block.
//
//     row   ┌ 16 bytes ┬ 16 bytes ┬ … ┬─────────┬ … ┐    thread t holds packs t, t + threads, …
//           │ thread 0 │ thread 1 │   │ thread 0│   │    in registers, up to HELD elements
//           └──────────┴──────────┴───┴─────────┴───┘
//     sum over the thread's elements → butterfly in each warp → one value of each warp in shared
//     memory → butterfly again: every thread has the sum, bit for bit the same
//
// Bytes: the row is read once and written once. The mean, the deviations from it (two-pass
// statistics, as on the CPU) and the result come from registers; what a row has beyond
// HELD · threads elements is read again, from the L2. At 2 or 3 operations for each byte the memory
// is the bound; a warp's 16-byte packs are whole 512-byte transactions. Where a row is not aligned
// to 16 bytes, the same threads read the same elements one by one.
//
// All threads of the block call these functions, with the same arguments; their number is a
// multiple of 32. A row is a pointer, or a function row(values, first, count) that computes `count`
// elements of it from `first` on: what is fused in front of a normalization never leaves the
// registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "math.h"

namespace dfc {

// The type in which sums over elements of T are kept.
template <class T>
using accumulator = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

namespace rows {

// Elements of a pack, and of a row in the registers of one thread.
template <class T>
inline constexpr int PACK = 16 / sizeof(T);
inline constexpr int HELD = 16;

__device__ inline bool is_aligned(const void* p) {
  return (reinterpret_cast<std::uintptr_t>(p) & 15) == 0;
}

// The first `count` elements at p, widened; zeros in place of the others.
template <class A, int V, class T>
__device__ inline void load_pack(A (&values)[V], const T* p, int count) {
  if constexpr (V == PACK<T>) {
    if (count == V && is_aligned(p)) {
      const uint4 bits = *reinterpret_cast<const uint4*>(p);
      T pack[V];
      memcpy(pack, &bits, sizeof bits);
#pragma unroll
      for (int e = 0; e < V; ++e) values[e] = A(pack[e]);
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) values[e] = e < count ? A(p[e]) : A(0);
}

template <class A, int V, class T>
__device__ inline void store_pack(T* p, const A (&values)[V], int count) {
  if constexpr (V == PACK<T>) {
    if (count == V && is_aligned(p)) {
      T pack[V];
#pragma unroll
      for (int e = 0; e < V; ++e) pack[e] = T(values[e]);
      uint4 bits;
      memcpy(&bits, pack, sizeof bits);
      *reinterpret_cast<uint4*>(p) = bits;
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (e < count) p[e] = T(values[e]);
  }
}

// A row in memory as a function of packs.
template <class T>
struct InMemory {
  const T* data;
  template <class A, int V>
  __device__ void operator()(A (&values)[V], std::int64_t first, int count) const {
    load_pack(values, data + first, count);
  }
};

template <class Row>
__device__ auto source_of(const Row& row) {
  if constexpr (std::is_pointer_v<Row>) {
    return InMemory<std::remove_const_t<std::remove_pointer_t<Row>>>{row};
  } else {
    return row;
  }
}

// The block's row of n elements: what this thread has of it.
template <class T, class Source>
class Held {
 public:
  using A = accumulator<T>;
  static constexpr int V = PACK<T>, PACKS = HELD / V > 0 ? HELD / V : 1;

  __device__ Held(const Source& source, std::int64_t n) : source_(source), n_(n) {
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      if (first(p) < n_) source_(values_[p], first(p), count(first(p)));
    }
  }

  // visit(values, first, count) for each of this thread's packs.
  template <class Visit>
  __device__ void each(const Visit& visit) const {
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      if (first(p) < n_) visit(values_[p], first(p), count(first(p)));
    }
    for (std::int64_t i = first(PACKS); i < n_; i += std::int64_t(blockDim.x) * V) {
      A again[V];
      source_(again, i, count(i));
      visit(again, i, count(i));
    }
  }

  // combine(… combine(initial, map(x₀)) …, map(xₖ)) of this thread's elements.
  template <class Map, class Combine>
  __device__ A fold(A initial, const Map& map, const Combine& combine) const {
    A total = initial;
    each([&](const A(&values)[V], std::int64_t, int valid) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if (e < valid) total = combine(total, map(values[e]));
      }
    });
    return total;
  }

  // o[i] = map(i, x[i]).
  template <class Map>
  __device__ void store(T* o, const Map& map) const {
    each([&](const A(&values)[V], std::int64_t i, int valid) {
      A mapped[V];
      map(mapped, values, i, valid);
      store_pack(o + i, mapped, valid);
    });
  }

 private:
  __device__ std::int64_t first(int pack) const {
    return (std::int64_t(pack) * blockDim.x + threadIdx.x) * V;
  }
  __device__ int count(std::int64_t i) const { return n_ - i < V ? int(n_ - i) : V; }

  const Source& source_;
  std::int64_t n_;
  A values_[PACKS][V];
};

template <class A>
__device__ inline A shuffle_xor(A value, int bits) {
  if constexpr (sizeof(A) < 4) {
    return A(__shfl_xor_sync(0xffffffffu, int(value), bits));
  } else {
    return __shfl_xor_sync(0xffffffffu, value, bits);
  }
}

template <class A, class Combine>
__device__ inline A warp_fold(A value, const Combine& combine) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value = combine(value, shuffle_xor(value, bits));
  return value;
}

// `value` of all threads, combined; every thread gets it. combine is associative and commutative.
template <class A, class Combine>
__device__ inline A block_fold(A value, A identity, const Combine& combine) {
  __shared__ A partial[32];
  value = warp_fold(value, combine);
  if (blockDim.x <= 32) return value;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = warp_fold(lane < warps ? partial[lane] : identity, combine);
  __syncthreads();  // before the next fold writes there
  return value;
}

struct Add {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

struct Greater {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return maximum(a, b);
  }
};

struct Same {
  template <class A>
  __device__ A operator()(A x) const {
    return x;
  }
};

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
