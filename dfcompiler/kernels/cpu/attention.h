// Attention of one block of query rows of one head: softmax(q·kᵀ·scale + mask)·v.
//
//              KEYS keys                         Scores of QUERIES × KEYS live in cache and are
//            ┌───────────┐                       never written to memory: for each block of keys
//    q rows  │  scores   │  → softmax → · v      the rows' maxima and sums are updated, the output
//   QUERIES  │ (L1 / L2) │    (online)           so far is rescaled, and the block's share added
//            └───────────┘                       (online softmax, arXiv 1805.02867).
//
// Products run in the register tiles of gemm.h; a block of keys is transposed in registers. All
// strides but the output's last one are free, so transposed views need no copies. Moves q, k, v,
// the mask and the output once per block of queries, plus nothing.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "gemm.h"
#include "math.h"
#include "pack.h"
#include "vec.h"

namespace dfc::attention {

inline constexpr long QUERIES = 64, KEYS = 128, WIDTH = 128;

// A matrix in memory.
template <class T>
struct Matrix {
  T* data;
  long row_stride, column_stride;
};

// Sizes of one head. `group` query heads read the same keys.
struct Sizes {
  long queries, keys, width, value_width, group;
};

// What a mask does to a vector of scaled scores: the lanes belong to columns column, column+1, ….
struct NoMask {
  template <class V>
  DFC_INLINE V operator()(V x, long, long, int) const {
    return x;
  }
  DFC_INLINE void shift_head(long) {}
  DFC_INLINE void rows_are_heads() {}
};

namespace detail {

template <class T, class M>
DFC_INLINE vec<T> mask_lanes(const M* p, long stride, int count) {
  constexpr int L = lanes<T>;
  if (stride == 0) return splat<T>(T(*p));
  if (stride == 1 && count == L) return load_as<T>(p);
  vec<T> x{};
  for (int i = 0; i < count; ++i) x[i] = T(p[i * stride]);
  return x;
}

}  // namespace detail

// scores + mask.
template <class T>
struct AdditiveMask {
  const T* data;
  long row_stride, column_stride, head_stride;

  DFC_INLINE vec<T> operator()(vec<T> x, long row, long column, int count) const {
    const T* p = data + row * row_stride + column * column_stride;
    return x + detail::mask_lanes<T>(p, column_stride, count);
  }
  DFC_INLINE void shift_head(long heads) { data += heads * head_stride; }
  DFC_INLINE void rows_are_heads() { row_stride = head_stride; }
};

// scores where the mask is true, minus infinity elsewhere.
template <class T>
struct BoolMask {
  const std::int8_t* data;
  long row_stride, column_stride, head_stride;

  DFC_INLINE vec<T> operator()(vec<T> x, long row, long column, int count) const {
    const std::int8_t* p = data + row * row_stride + column * column_stride;
    const vec<T> visible = detail::mask_lanes<T>(p, column_stride, count);
    return visible != T(0) ? x : splat(-std::numeric_limits<T>::infinity());
  }
  DFC_INLINE void shift_head(long heads) { data += heads * head_stride; }
  DFC_INLINE void rows_are_heads() { row_stride = head_stride; }
};

namespace detail {

// C[R rows, vectors] (+)= A[rows, depth]·B[depth, vectors], in tiles of V vectors, then narrower.
template <class T, int V>
void row_tiles(int rows, long vectors, long depth, const T* a, long lda, const T* b, long ldb, T* c,
               long ldc, bool accumulate) {
  constexpr int L = lanes<T>;
  for (; vectors >= V; vectors -= V, b += V * L, c += V * L)
    gemm::tile_of<T, T, V, gemm::tile_rows<T>>(rows, depth, a, lda, b, ldb, c, ldc, accumulate,
                                               reinterpret_cast<const char*>(a));
  if constexpr (V > 1)
    if (vectors > 0) row_tiles<T, V / 2>(rows, vectors, depth, a, lda, b, ldb, c, ldc, accumulate);
}

template <class T>
void product(int rows, long vectors, long depth, const T* a, long lda, const T* b, long ldb, T* c,
             long ldc, bool accumulate) {
  constexpr int R = gemm::tile_rows<T>;
  for (int r = 0; r < rows; r += R)
    row_tiles<T, gemm::NR / lanes<T>>(std::min(R, rows - r), vectors, depth, a + r * lda, lda, b,
                                      ldb, c + r * ldc, ldc, accumulate);
}

// The sums of the lanes of 2·S vectors, in pairs: S vectors remain.
template <class T, int S>
DFC_INLINE void add_lanes(vec<T>* x) {
  vec_index<T> low, high;
  dfc::detail::butterfly<T, S>(low, high);
#pragma GCC unroll 16
  for (int i = 0; i < S; ++i)
    x[i] = shuffle<T>(x[i], x[i + S], low) + shuffle<T>(x[i], x[i + S], high);
  if constexpr (S > 1) add_lanes<T, S / 2>(x);
}

// scores[r, t] = q[r]·k[t] for few rows: reads k once, in place, without a transpose.
template <class T>
void few_scores(int rows, long keys, long width, const T* q, long q_row, const T* k, long k_row,
                T* scores) {
  constexpr int L = lanes<T>;
  for (long t = 0; t < keys; t += L)
    for (int r = 0; r < rows; ++r) {
      vec<T> x[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        const T* key = k + std::min(t + i, keys - 1) * k_row;
        x[i] = load(q + r * q_row) * load(key);
        for (long d = L; d < width; d += L) x[i] += load(q + r * q_row + d) * load(key + d);
      }
      add_lanes<T, L / 2>(x);
      store(scores + r * KEYS + t, x[0]);
    }
}

// What is known of one row's softmax so far.
template <class T>
struct Row {
  T peak = -std::numeric_limits<T>::infinity();  // greatest score
  T shift = 0;                                   // what is taken from scores before exp
  T factor = 0;                                  // what earlier weights are to be multiplied with
  T total = 0;                                   // sum of weights
};

// Scales and masks the scores of a row that begin at `column`, and finds the greatest.
template <class T, class Mask>
DFC_INLINE void mask_row(T* scores, long visible, T scale, const Mask& mask, long row, long column,
                         Row<T>& state) {
  constexpr int L = lanes<T>;
  const T lowest = -std::numeric_limits<T>::infinity();
  vec_index<T> lane;
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) lane[i] = i;
  vec<T> greatest = splat(state.peak);
  for (long j = 0; j < visible; j += L) {
    const int count = int(std::min<long>(L, visible - j));
    vec<T> x = mask(load(scores + j) * scale, row, column + j, count);
    if (count < L) x = lane < count ? x : splat(lowest);
    greatest = x > greatest ? x : greatest;
    store(scores + j, x);
  }
  const T peak = reduce_max<T>(greatest);
  state.shift = peak == lowest ? T(0) : peak;
  if (column > 0) state.factor = exp_nonpositive(state.peak - state.shift);
  state.peak = peak;
}

template <class T>
DFC_INLINE void scale_row(T* row, long width, T factor) {
  constexpr int L = lanes<T>;
  long j = 0;
  for (; j + L <= width; j += L) store(row + j, load(row + j) * factor);
  for (; j < width; ++j) row[j] *= factor;
}

// Turns the scores of a row into weights; what is behind `visible` becomes zero up to `keys`.
template <class T>
DFC_INLINE void weigh_row(T* scores, long visible, long keys, Row<T>& state) {
  constexpr int L = lanes<T>;
  vec<T> sum{};
  long j = 0;
  for (; j < visible; j += L) {
    const vec<T> weight = exp_nonpositive(load(scores + j) - state.shift);
    sum += weight;
    store(scores + j, weight);
  }
  for (; j < keys; j += L) store(scores + j, vec<T>{});
  state.total = state.total * state.factor + reduce_add<T>(sum);
}

}  // namespace detail

// Rows [row0, row0 + rows) of one head.
template <class T, class Mask>
void head_rows(int rows, long row0, const Sizes& size, T scale, bool causal, Matrix<const T> q,
               Matrix<const T> k, Matrix<const T> v, const Mask& mask, Matrix<T> o) {
  constexpr int L = lanes<T>;
  alignas(64) T scores[QUERIES * KEYS];
  alignas(64) T operand[WIDTH * KEYS];  // keys, transposed; then columns of v where they are copied
  alignas(64) T queries[QUERIES * WIDTH];
  alignas(64) T part[QUERIES * gemm::NR];
  detail::Row<T> state[QUERIES];
  const long horizon = size.keys - size.queries;  // row i sees columns up to i + horizon
  const long end = causal ? std::clamp(row0 + rows + horizon, 0L, size.keys) : size.keys;
  q.data += row0 * q.row_stride;
  o.data += row0 * o.row_stride;
  const bool few = rows <= 3 && q.column_stride == 1 && k.column_stride == 1 &&
                   size.width % L == 0 && size.width > 0;
  for (long t = 0; t < end; t += KEYS) {
    const long keys = std::min(KEYS, end - t);
    const long padded = (keys + L - 1) / L * L;
    const T* keys_from = k.data + t * k.row_stride;
    if (few) {
      detail::few_scores(rows, keys, size.width, q.data, q.row_stride, keys_from, k.row_stride,
                         scores);
    }
    for (long d = 0; !few && d < size.width; d += WIDTH) {
      const long depth = std::min(WIDTH, size.width - d);
      pack(keys_from + d * k.column_stride, k.column_stride, k.row_stride, depth, keys, operand,
           KEYS, padded);
      const T* rows_of_q = q.data + d * q.column_stride;
      long ldq = q.row_stride;
      if (q.column_stride != 1) {
        pack(rows_of_q, q.row_stride, q.column_stride, rows, depth, queries, WIDTH, depth);
        rows_of_q = queries;
        ldq = WIDTH;
      }
      detail::product(rows, padded / L, depth, rows_of_q, ldq, operand, KEYS, scores, KEYS, d > 0);
    }
    // Two sweeps: in one, each row's chain of reductions would stall the next row's work.
    const auto visible = [&](int r) {
      return causal ? std::clamp(row0 + r + horizon + 1 - t, 0L, keys) : keys;
    };
    for (int r = 0; r < rows; ++r)
      detail::mask_row(scores + r * KEYS, visible(r), scale, mask, row0 + r, t, state[r]);
    for (int r = 0; r < rows; ++r) detail::weigh_row(scores + r * KEYS, visible(r), keys, state[r]);
    for (int r = 0; t > 0 && r < rows; ++r)
      if (state[r].factor != T(1))
        detail::scale_row(o.data + r * o.row_stride, size.value_width, state[r].factor);
    const T* values_from = v.data + t * v.row_stride;
    const long whole = v.column_stride == 1 ? size.value_width / L * L : 0;
    if (whole > 0)
      detail::product(rows, whole / L, keys, scores, KEYS, values_from, v.row_stride, o.data,
                      o.row_stride, t > 0);
    for (long j = whole; j < size.value_width; j += gemm::NR) {
      const long columns = std::min<long>(gemm::NR, size.value_width - j);
      pack(values_from + j * v.column_stride, v.row_stride, v.column_stride, keys, columns, operand,
           gemm::NR, gemm::NR);
      detail::product(rows, (columns + L - 1) / L, keys, scores, KEYS, operand, gemm::NR, part,
                      gemm::NR, false);
      for (int r = 0; r < rows; ++r)
        for (long i = 0; i < columns; ++i) {
          T& out = o.data[r * o.row_stride + j + i];
          out = (t > 0 ? out : T(0)) + part[r * gemm::NR + i];
        }
    }
  }
  for (int r = 0; r < rows; ++r) {
    T* out = o.data + r * o.row_stride;
    if (end <= 0) {
      std::fill_n(out, size.value_width, T(0));  // nothing was written yet
    } else {
      detail::scale_row(out, size.value_width, state[r].total == T(0) ? T(0) : 1 / state[r].total);
    }
  }
}

// Tasks of one key head: a block of queries of one of its `group` query heads each.
inline long tasks(const Sizes& size) {
  return size.group * ((size.queries + QUERIES - 1) / QUERIES);
}

// Task `index` of one key head. q, mask and o point to the first query head of the group. With one
// query (decode) the heads of a group are the rows of the first task, so that keys move once.
template <class T, class Mask>
void task(long index, Sizes size, T scale, bool causal, Matrix<const T> q, long q_head,
          Matrix<const T> k, Matrix<const T> v, Mask mask, Matrix<T> o, long o_head) {
  if (size.queries == 1 && size.group > 1 && size.group <= QUERIES) {
    mask.rows_are_heads();
    q.row_stride = q_head;
    o.row_stride = o_head;
    if (index == 0) head_rows(int(size.group), 0, size, scale, false, q, k, v, mask, o);
    return;
  }
  const long blocks = (size.queries + QUERIES - 1) / QUERIES;
  const long head = index / blocks, row0 = index % blocks * QUERIES;
  q.data += head * q_head;
  o.data += head * o_head;
  mask.shift_head(head);
  const int rows = int(std::min(QUERIES, size.queries - row0));
  head_rows(rows, row0, size, scale, causal, q, k, v, mask, o);
}

}  // namespace dfc::attention
