// Attention of up to 64 queries, side by side in the lanes of vector registers.
//
//        keys                 width
//      ┌──────┐              ┌─────┐        1. q is transposed and scaled: a row for each element of
//      │  kᵀ  │ one block    │  v  │           a head, a lane for each query.
//      └──────┘              └─────┘        2. scores[key, query] = k·qᵀ: k is read in place.
//      ┌──────┐ scores,      ┌─────┐        3. Weights exp(score - peak): a row's softmax runs down
//   q  │  P   │ transposed:  │  o  │           a lane, so no vector is ever reduced.
//      └──────┘ lane = query └─────┘        4. o += weights·v, and at the end o / sum.
//
// 128 keys at a time: their scores and values stay in the first-level cache and never reach
// memory. A further block rescales what there is (online softmax, arXiv 1805.02867) while the
// accumulators of 4. are loaded. Moves q and o once, k and v once per panel of queries.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention_mask.h"
#include "attention_tile.h"
#include "math.h"
#include "pack.h"

namespace dfc::attention {

inline constexpr long PANEL = 64;   // queries
inline constexpr long KEYS = 128;   // of a block
inline constexpr long WIDTH = 256;  // elements of a head that are worked on at a time

// A matrix in memory.
template <class T>
struct Matrix {
  T* data;
  long row_stride, column_stride;
};

// Sizes of one key head. `group` query heads read the same keys.
struct Sizes {
  long queries, keys, width, value_width, group;
};

// exp(x) for x <= 0 with five multiply-adds: relative error 1.2e-7; zero below exp(-88).
DFC_INLINE vfloat weight(vfloat x) {
  // A constant that the compiler knew would be compared and blended: two instructions, not one.
  static const volatile float limit = -88.0295f;
  const vfloat least = splat<float>(limit);
  x = least > x ? least : x;  // NaN stays
  // 1.5·2^23 rounds to an integer n; 127 more make the low bits those of 2^n, or of 0 for n = -127.
  const vfloat shifted = x * 1.44269504f + 12583039.0f;
  const vfloat f = x * 1.44269504f - (shifted - 12583039.0f);
  vfloat p = f * 1.327647198e-03f + 9.675541334e-03f;
  p = p * f + 5.550713274e-02f;
  p = p * f + 2.402211972e-01f;
  p = p * f + 6.931469671e-01f;
  p = p * f + 1.000000072e+00f;
  return p * __builtin_bit_cast(vfloat, __builtin_bit_cast(vint, shifted) << 23);
}
DFC_INLINE vdouble weight(vdouble x) { return exp_nonpositive(x); }

namespace detail {

// Scores of a block, stored; `top` collects the greatest of each lane.
template <class T>
struct Scores {
  T *scores, *top;
  bool accumulate;

  DFC_INLINE Scores at(long row, long column) const {
    return {scores + row * PANEL + column, top + column, accumulate};
  }
  template <int R, int V>
  DFC_INLINE void start(vec<T> (&sum)[R][V]) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = vec<T>{};
    if (accumulate)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = load(scores + r * PANEL + v * lanes<T>);
  }
  template <int R, int V>
  DFC_INLINE void finish(vec<T> (&sum)[R][V]) const {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      vec<T> most = load(top + v * lanes<T>);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        store(scores + r * PANEL + v * lanes<T>, sum[r][v]);
        most = sum[r][v] > most ? sum[r][v] : most;
      }
      store(top + v * lanes<T>, most);
    }
  }
};

// The output so far: rows are rescaled by `factor` when the block is not the first.
template <class T>
struct Output {
  T* output;
  const T* factor;
  long stride;

  DFC_INLINE Output at(long row, long column) const {
    return {output + row * stride + column, factor ? factor + row : nullptr, stride};
  }
  template <int R, int V>
  DFC_INLINE void start(vec<T> (&sum)[R][V]) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        sum[r][v] = factor ? load(output + r * stride + v * lanes<T>) * factor[r] : vec<T>{};
  }
  template <int R, int V>
  DFC_INLINE void finish(vec<T> (&sum)[R][V]) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(output + r * stride + v * lanes<T>, sum[r][v]);
  }
};

// to[c, lane] = row(lane)[c]·scale for one vector of lanes; `row` gives the start of a row.
template <class T, class From, class Row>
DFC_INLINE void transpose_rows(const Row& row, long column_stride, long columns, T scale, T* to,
                               long to_stride) {
  constexpr int L = lanes<T>;
  const From* rows[L];
  for (int i = 0; i < L; ++i) rows[i] = row(i);
  for (long c = 0; c < columns; c += L) {
    const int count = int(std::min<long>(L, columns - c));
    vec<T> x[L];
    if (column_stride == 1 && count == L) {
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) x[i] = load_as<T>(rows[i] + c) * scale;
    } else {
      for (int i = 0; i < L; ++i)
        x[i] = mask_lanes<T>(rows[i] + c * column_stride, column_stride, count) * scale;
    }
    dfc::detail::exchange<T, L / 2>(x);
    if (count == L) {
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(to + (c + i) * to_stride, x[i]);
    } else {
      for (int i = 0; i < count; ++i) store(to + (c + i) * to_stride, x[i]);
    }
  }
}

// output / total; a row without a visible key becomes zero.
template <class T>
DFC_INLINE void write_row(const T* output, T total, T* to, long width) {
  constexpr int L = lanes<T>;
  const T factor = T(1) / total;
  for (long j = 0; j < width; j += L) {
    const vec<T> x = total == T(0) ? vec<T>{} : load(output + j) * factor;
    if (width - j >= L) {
      store(to + j, x);
    } else {
      store_first(to + j, x, int(width - j));
    }
  }
}

}  // namespace detail

// A panel of queries: rows [row0, row0 + rows); row r is query r / group of head r % group, so that
// with a causal mask neighbouring lanes see about as many keys.
template <class T, class Mask>
class Panel {
  static constexpr int L = lanes<T>;
  static constexpr int VECTORS = PANEL / L;

 public:
  Panel(long row0, long rows, const Sizes& size, bool causal, const Mask& mask)
      : size_(size), rows_(rows), vectors_((rows + L - 1) / L), mask_(mask) {
    const long horizon = size.keys - size.queries;
    long head = row0 % size.group, query = row0 / size.group;
    end_ = 0;
    for (long i = 0; i < vectors_ * L; ++i) {
      if (i > 0 && i < rows && ++head == size.group) ++query, head = 0;
      head_[i] = head;
      query_[i] = query;
      reach_[i] = causal ? std::clamp(query + horizon + 1, 0L, size.keys) : size.keys;
      end_ = std::max(end_, reach_[i]);
    }
    uniform_ = mask.row_stride == 0 && (mask.head_stride == 0 || size.group == 1);
  }

  // Rows that the next task of this thread reads.
  Later& later() { return later_; }

  void run(T scale, Matrix<const T> q, long q_head, Matrix<const T> k, Matrix<const T> v,
           Matrix<T> o, long o_head) {
    const auto query = [&](long i) { return q.data + head_[i] * q_head + query_[i] * q.row_stride; };
    trim();
    for (long column = 0; column < size_.value_width; column += WIDTH) {
      const long width = std::min(WIDTH, size_.value_width - column);
      const long padded = (width + L - 1) / L * L;
      begin();
      for (long t = begin_; t < end_; t += KEYS) {
        count_keys(t);
        const Cover cover = cover_of_block(t);
        if (cover == Cover::hidden) continue;
        for (long d = 0; d < size_.width; d += WIDTH) {
          const long depth = std::min(WIDTH, size_.width - d);
          if (size_.width > WIDTH || !transposed_) transpose(query, q.column_stride, d, depth, scale);
          const Matrix<const T> keys{k.data + t * k.row_stride + d * k.column_stride, k.row_stride,
                                     k.column_stride};
          multiply_keys(keys, depth, d > 0);
        }
        weigh(t, cover);
        multiply_values({v.data + t * v.row_stride + column * v.column_stride, v.row_stride,
                         v.column_stride}, width, padded);
      }
      for (long i = 0; i < rows_; ++i)
        detail::write_row(output_ + i * padded, total_[i],
                          o.data + head_[i] * o_head + query_[i] * o.row_stride + column, width);
    }
  }

 protected:  // attention_bf16.h multiplies in another way
  // Leaves out keys at both ends that a mask for all queries alike hides.
  void trim() {
    begin_ = 0;
    if constexpr (Mask::active) {
      if (!uniform_) return;
      const auto* row = mask_row(0);
      while (end_ > 0 && Mask::hides(row[(end_ - 1) * mask_.column_stride])) --end_;
      while (begin_ < end_ && Mask::hides(row[begin_ * mask_.column_stride])) ++begin_;
    }
  }

  void begin() {
    first_ = true;
    transposed_ = false;
    for (long i = 0; i < PANEL; ++i) peak_[i] = lowest<T>, total_[i] = 0;
  }

  // Keys of the block at t that the lanes of each vector see at most; never fewer than before.
  void count_keys(long t) {
    long most = 0;
    for (long v = 0; v < vectors_; ++v) {
      long least = size_.keys;
      for (long i = v * L; i < v * L + L; ++i) {
        most = std::max(most, reach_[i]);
        least = std::min(least, reach_[i]);
      }
      keys_[v] = std::clamp(std::min(most, end_) - t, 0L, KEYS);
      clear_[v] = std::clamp(least - t, 0L, keys_[v]);
    }
  }

  const typename Mask::element* mask_row(long i) const {
    return mask_.data + head_[i] * mask_.head_stride + query_[i] * mask_.row_stride;
  }

  Cover cover_of_block(long t) const {
    if constexpr (Mask::active) {
      Survey<T, Mask> survey;
      for (long i = 0; i < (uniform_ ? 1 : rows_); ++i)
        survey.add(mask_row(i) + t * mask_.column_stride, mask_.column_stride, keys_[vectors_ - 1]);
      return survey.cover();
    }
    return Cover::clear;
  }

  template <class Query>
  void transpose(const Query& query, long stride, long d, long depth, T scale) {
    for (long v = 0; v < vectors_; ++v)
      detail::transpose_rows<T, T>([&](int i) { return query(v * L + i) + d * stride; }, stride,
                                   depth, scale, queries_ + v * L, PANEL);
    transposed_ = true;
  }

  // scores[key, lane] (+)= k·qᵀ.
  DFC_OUTLINE void multiply_keys(Matrix<const T> k, long depth, bool accumulate) {
    constexpr long STEP = 48;  // rows of every tile divide it
    for (long i = 0; i < vectors_ * L; ++i) top_[i] = lowest<T>;
    const detail::Scores<T> update{scores_, top_, accumulate};
    const auto all = [&](long) { return depth; };
    ByRows<T> keys{k.data, k.row_stride};
    if (k.column_stride != 1) {
      copy_rows(k.data, k.row_stride, k.column_stride, keys_[vectors_ - 1], depth, values_, depth);
      keys = {values_, depth};
    }
    long row = 0;
    for (long vector = 0; vector < vectors_; ++vector) {
      const long end = keys_[vector];
      for (long rows; row < end; row += rows) {
        rows = std::min(STEP, end - row);
        product<T>(row, row + rows, vectors_ - vector, all, keys, queries_, PANEL, update,
                   vector * L, later_);
      }
    }
  }

  // Turns scores into weights.
  DFC_OUTLINE void weigh(long t, Cover cover) {
    const long keys = keys_[vectors_ - 1];
    for (long v = 0; v < vectors_; ++v) {
      const long end = keys_[v];
      T* scores = scores_ + v * L;
      if (cover == Cover::mixed) hide_masked(scores, v, t, end);
      if (clear_[v] < end) hide_above_diagonal(scores, v, t, end);
      if (cover == Cover::mixed || clear_[v] < end) find_top(scores, v, end);
      const vec<T> old = load(peak_ + v * L), top = load(top_ + v * L);
      const vec<T> peak = top > old ? top : old;
      const vec<T> shift = peak == splat(lowest<T>) ? vec<T>{} : peak;
      const vec<T> factor = weight(old - shift);
      store(peak_ + v * L, peak);
      store(factor_ + v * L, factor);
      vec<T> sum[4] = {load(total_ + v * L) * factor};
      long key = 0;
      for (; key + 4 <= end; key += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const vec<T> w = weight(load(scores + (key + i) * PANEL) - shift);
          sum[i] += w;
          store(scores + (key + i) * PANEL, w);
        }
      for (; key < end; ++key) {
        const vec<T> w = weight(load(scores + key * PANEL) - shift);
        sum[0] += w;
        store(scores + key * PANEL, w);
      }
      store(total_ + v * L, (sum[0] + sum[1]) + (sum[2] + sum[3]));
      for (; key < keys; ++key) store(scores + key * PANEL, vec<T>{});
    }
  }

  DFC_OUTLINE void hide_masked(T* scores, long v, long t, long end) {
    if constexpr (Mask::active) {
      const long stride = mask_.column_stride;
      alignas(64) T block[L * L];
      for (long key = 0; key < end; key += L) {
        const long count = std::min<long>(L, end - key);
        const auto row = [&](int i) { return mask_row(v * L + i) + (t + key) * stride; };
        if (uniform_) {
          for (long i = 0; i < count; ++i) store(block + i * L, splat<T>(T(row(0)[i * stride])));
        } else {
          detail::transpose_rows<T, typename Mask::element>(row, stride, count, T(1), block, L);
        }
        for (long i = 0; i < count; ++i) {
          T* at = scores + (key + i) * PANEL;
          store(at, Mask::apply(load(at), load(block + i * L)));
        }
      }
    }
  }

  DFC_OUTLINE void hide_above_diagonal(T* scores, long v, long t, long end) {
    vec_index<T> reach;
    for (int i = 0; i < L; ++i) reach[i] = reach_[v * L + i] - t;
    for (long key = clear_[v]; key < end; ++key) {
      const vec<T> x = load(scores + key * PANEL);
      const vec_index<T> here = vec_index<T>{} + typename std::decay_t<decltype(reach[0])>(key);
      store(scores + key * PANEL, here < reach ? x : splat(lowest<T>));
    }
  }

  void find_top(const T* scores, long v, long end) {
    vec<T> top = splat(lowest<T>);
    for (long key = 0; key < end; ++key) {
      const vec<T> x = load(scores + key * PANEL);
      top = x > top ? x : top;
    }
    store(top_ + v * L, top);
  }

  // output (+)= weights·v. Every tile of rows reads v once more: from a copy where it has no
  // whole vectors, or where its rows, some whole KB apart, would compete for few sets of the L1.
  DFC_OUTLINE void multiply_values(Matrix<const T> v, long width, long padded) {
    constexpr long CROWDED = 1024 / sizeof(T);
    const long keys = keys_[vectors_ - 1];
    const bool spread = v.row_stride % CROWDED != 0 || v.row_stride == width;
    if (v.column_stride != 1 || width != padded || !spread) {
      copy_rows(v.data, v.row_stride, v.column_stride, keys, width, values_, padded);
      v = {values_, padded, 1};
    }
    const detail::Output<T> update{output_, first_ ? nullptr : factor_, padded};
    const auto depth = [&](long row) { return keys_[row / L]; };
    const ByLanes<T, PANEL> weights{scores_};
    product<T>(0, rows_, padded / L, depth, weights, v.data, v.row_stride, update, 0, later_);
    first_ = false;
  }

  Sizes size_;
  Later later_;
  long rows_, vectors_, begin_, end_;
  Mask mask_;
  bool uniform_, first_, transposed_;
  long head_[PANEL], query_[PANEL], reach_[PANEL];  // of each lane
  long keys_[VECTORS], clear_[VECTORS];
  alignas(64) T peak_[PANEL], top_[PANEL], total_[PANEL], factor_[PANEL];
  alignas(64) T queries_[WIDTH * PANEL];  // [element, lane]
  alignas(64) T scores_[KEYS * PANEL];    // [key, lane]
  alignas(64) T values_[KEYS * WIDTH];
  alignas(64) T output_[PANEL * WIDTH];
};

}  // namespace dfc::attention
