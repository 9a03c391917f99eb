// Reductions of rows and of columns by teams of threads, arg-max, running sums.
//
//   innermost axis reduced                    innermost axis kept
//   ┌ team ───────────▶ ┐  one result         ┌ block ─┐  X threads side by side, a pack of
//   │ packs by thread   │  for each team      │ X × Y  │  columns each; Y of them below each
//   └───────────────────┘                     ▼▼▼▼▼▼▼▼▼▼  other take every Y-th row
//
// Bytes: every element is read once, in packs of 16 bytes; each thread has TOGETHER of them under way
// before it adds the first one. The order in which elements are combined depends on shapes alone.
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

namespace rows {

inline constexpr int TOGETHER = 4;

// visit(values, first, count) for each pack of THREADS · V elements of a row that is this thread's;
// up to TOGETHER are loaded before the first of them is visited.
template <class A, int THREADS, class T, class Visit>
__device__ inline void visit_row(const T* x, std::int64_t n, const Visit& visit) {
  constexpr int V = PACK<T>;
  constexpr std::int64_t STEP = std::int64_t(THREADS) * V;
  std::int64_t i = std::int64_t(threadIdx.x) * V;
  if (are_aligned(x)) {
    for (; i + (TOGETHER - 1) * STEP + V <= n; i += TOGETHER * STEP) {
      A values[TOGETHER][V];
#pragma unroll
      for (int t = 0; t < TOGETHER; ++t) load_pack(values[t], x + i + t * STEP, Whole{});
#pragma unroll
      for (int t = 0; t < TOGETHER; ++t) visit(values[t], i + t * STEP, V);
    }
    for (; i + V <= n; i += STEP) {
      A values[V];
      load_pack(values, x + i, Whole{});
      visit(values, i, V);
    }
  }
  for (; i < n; i += STEP) {
    A values[V];
    const int count = n - i < V ? int(n - i) : V;
    load_pack(values, x + i, count);
    visit(values, i, count);
  }
}

}  // namespace rows

// One result of a team: rows are added to what each thread has, which `value` combines.
template <class Op, class A, int THREADS>
struct RowReduction {
  static constexpr A identity = Op::template identity<A>;
  A own = identity;

  template <class T>
  __device__ void add(const T* x, std::int64_t n) {
    rows::visit_row<A, THREADS>(x, n, [&](const auto& values, std::int64_t, int count) {
#pragma unroll
      for (int e = 0; e < rows::PACK<T>; ++e) {
        if (e < count) own = Op{}(own, values[e]);
      }
    });
  }

  __device__ A value() const { return rows::team_fold<THREADS>(own, identity, Op{}); }
};

// Results of a block of X · Y threads: column j of rows begin … end - 1, of which row r lies offset(r)
// behind the first one, a multiple of 16 bytes if `aligned`. store(j, value) is called once for each
// column; all threads of the block call this.
//
// What the threads of a column have is combined in shared memory, the first row first.
template <class Op, class A, int X, int Y, class T, class Offset, class Store>
__device__ void reduce_columns(const T* x, std::int64_t columns, std::int64_t begin,
                               std::int64_t end, bool aligned, const Offset& offset,
                               const Store& store) {
  constexpr int V = rows::PACK<T>, TOGETHER = rows::TOGETHER;
  __shared__ A parts[Y][X * V];
  const int pack = threadIdx.x % X, group = threadIdx.x / X;
  const std::int64_t first = std::int64_t(pack) * V, left = columns - first;
  const int count = left < V ? int(left) : V;
  A total[V];
#pragma unroll
  for (int e = 0; e < V; ++e) total[e] = Op::template identity<A>;
  const auto add = [&](const A(&values)[V]) {
#pragma unroll
    for (int e = 0; e < V; ++e) total[e] = Op{}(total[e], values[e]);
  };
  std::int64_t r = begin + group;
  if (count == V && aligned && rows::are_aligned(x)) {
    for (; r + (TOGETHER - 1) * Y < end; r += TOGETHER * Y) {
      A values[TOGETHER][V];
#pragma unroll
      for (int t = 0; t < TOGETHER; ++t)
        rows::load_pack(values[t], x + offset(r + t * Y) + first, rows::Whole{});
#pragma unroll
      for (int t = 0; t < TOGETHER; ++t) add(values[t]);
    }
    for (; r < end; r += Y) {
      A values[V];
      rows::load_pack(values, x + offset(r) + first, rows::Whole{});
      add(values);
    }
  }
  for (; r < end && count > 0; r += Y) {
    A values[V];
    rows::load_pack(values, x + offset(r) + first, count);
    add(values);
  }
#pragma unroll
  for (int e = 0; e < V; ++e) parts[group][first + e] = total[e];
  __syncthreads();
  for (int j = threadIdx.x; j < X * V && j < columns; j += X * Y) {
    A sum = parts[0][j];
#pragma unroll
    for (int y = 1; y < Y; ++y) sum = Op{}(sum, parts[y][j]);
    store(std::int64_t(j), sum);
  }
}

namespace rows {

// A candidate for the first greatest element of a row; position n: none.
template <class A>
struct Found {
  A value;
  std::int64_t position;
};

// The better of two candidates: greater, or as great and earlier; NaN is greater than numbers.
struct Earlier {
  std::int64_t n;

  template <class A>
  __device__ Found<A> operator()(const Found<A>& a, const Found<A>& b) const {
    if (b.position == n) return a;
    if (a.position == n) return b;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return b_nan ? b : a;
    if (a_nan || a.value == b.value) return b.position < a.position ? b : a;
    return b.value > a.value ? b : a;
  }
};

template <class A>
__device__ inline Found<A> shuffle_xor(const Found<A>& own, int bits, unsigned lanes) {
  return {shuffle_xor(own.value, bits, lanes), shuffle_xor(own.position, bits, lanes)};
}
template <class A>
__device__ inline Found<A> shuffle_xor(const Found<A>& own, int bits) {
  return shuffle_xor(own, bits, 0xffffffffu);
}

}  // namespace rows

// The position of the first greatest element; the first NaN counts as greatest.
template <int THREADS, class T>
__device__ std::int64_t argmax_row(const T* x, std::int64_t stride, std::int64_t n) {
  using A = std::conditional_t<std::is_same_v<T, bool>, unsigned char, accumulator<T>>;
  using Found = rows::Found<A>;
  const rows::Earlier better{n};
  Found own{A(0), n};
  if (stride == 1) {
    rows::visit_row<A, THREADS>(x, n, [&](const auto& values, std::int64_t first, int count) {
#pragma unroll
      for (int e = 0; e < rows::PACK<T>; ++e) {
        const A value = values[e];  // behind what `own` is: equal ones do not count
        const bool is_better = value > own.value || (value != value && own.value == own.value);
        if (e < count && (own.position == n || is_better)) own = {value, first + e};
      }
    });
  } else {
    for (std::int64_t i = threadIdx.x; i < n; i += THREADS)
      own = better(own, Found{A(x[i * stride]), i});
  }
  return rows::team_fold<THREADS>(own, Found{A(0), n}, better).position;
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
