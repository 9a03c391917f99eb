// Reductions of rows by a block and of columns by a thread, arg-max, running sums.
//
//   innermost axis reduced                    innermost axis kept
//   ┌ block ──────────▶ ┐  one result         │ │ │ │  one result for each thread;
//   │ packs by thread   │  for each block     ▼ ▼ ▼ ▼  a warp reads 32 neighbours at a time
//
// Bytes: every element is read once, by neighbouring threads side by side either way.
#pragma once

#include "block_fold.h"
#include "row_packs.h"

namespace dfc {

struct Sum {
  template <class A>
  static constexpr A identity = A(0);
  template <class A>
  __device__ A operator()(A a, A b) const {
    return A(a + b);
  }
};

struct Product {
  template <class A>
  static constexpr A identity = A(1);
  template <class A>
  __device__ A operator()(A a, A b) const {
    return A(a * b);
  }
};

struct Maximum {
  template <class A>
  static constexpr A identity = least<A>;
  template <class A>
  __device__ A operator()(A a, A b) const {
    return maximum(a, b);
  }
};

struct Minimum {
  template <class A>
  static constexpr A identity = greatest<A>;
  template <class A>
  __device__ A operator()(A a, A b) const {
    return minimum(a, b);
  }
};

// One result of a block: rows are added to what each thread has, which `value` combines.
template <class Op, class A>
struct RowReduction {
  static constexpr A identity = Op::template identity<A>;
  A own = identity;

  template <class T>
  __device__ void add(const T* x, std::int64_t n) {
    constexpr int V = rows::PACK<T>;
    for (std::int64_t i = std::int64_t(threadIdx.x) * V; i < n; i += std::int64_t(blockDim.x) * V) {
      A values[V];
      const int count = n - i < V ? int(n - i) : V;
      rows::load_pack(values, x + i, count);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if (e < count) own = Op{}(own, values[e]);
      }
    }
  }

  __device__ A value() const { return rows::block_fold(own, identity, Op{}); }
};

// One result of a thread.
template <class Op, class A>
struct ColumnReduction {
  A total = Op::template identity<A>;

  template <class T>
  __device__ void add(const T& x) {
    total = Op{}(total, A(x));
  }

  __device__ A value() const { return total; }
};

// The position of the first greatest element; the first NaN counts as greatest.
template <class T>
__device__ std::int64_t argmax_row(const T* x, std::int64_t stride, std::int64_t n) {
  using A = std::conditional_t<std::is_same_v<T, bool>, unsigned char, accumulator<T>>;
  struct Found {
    A value;
    std::int64_t position;  // n: nothing
  };
  // Whether b comes before a: greater, or as great and earlier.
  const auto better = [n](const Found& a, const Found& b) {
    if (b.position == n) return false;
    if (a.position == n) return true;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return b_nan;
    if (a_nan || a.value == b.value) return b.position < a.position;
    return b.value > a.value;
  };
  const auto fold_warp = [&](Found own) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) {
      const Found other{rows::shuffle_xor(own.value, bits), rows::shuffle_xor(own.position, bits)};
      own = better(own, other) ? other : own;
    }
    return own;
  };
  Found own{A(0), n};
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const Found next{A(x[i * stride]), i};
    own = better(own, next) ? next : own;
  }
  own = fold_warp(own);
  if (blockDim.x <= 32) return own.position;
  __shared__ A values[32];
  __shared__ std::int64_t positions[32];
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) {
    values[threadIdx.x / 32] = own.value;
    positions[threadIdx.x / 32] = own.position;
  }
  __syncthreads();
  own = lane < warps ? Found{values[lane], positions[lane]} : Found{A(0), n};
  own = fold_warp(own);
  __syncthreads();
  return own.position;
}

// o[i] = x[0] + … + x[i]: tiles of one element for each thread, each tile a scan of its warps.
template <class T>
__device__ void cumsum_row(T* o, std::int64_t o_stride, const T* x, std::int64_t x_stride,
                           std::int64_t n) {
  using A = accumulator<T>;
  using W = std::conditional_t<(sizeof(A) < 4), int, A>;  // what shuffles move
  __shared__ W ends[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const Sum add;
  W before = 0;
  for (std::int64_t start = 0; start < n; start += blockDim.x) {
    const std::int64_t i = start + threadIdx.x;
    W sum = i < n ? W(A(x[i * x_stride])) : W(0);
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const W other = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum = add(sum, other);
    }
    if (lane == 31) ends[warp] = sum;
    __syncthreads();
    W offset = before;
    for (int w = 0; w < warps; ++w) {
      if (w == warp) sum = add(offset, sum);
      offset = add(offset, ends[w]);
    }
    before = offset;
    if (i < n) o[i * o_stride] = T(A(sum));
    __syncthreads();
  }
}

}  // namespace dfc
