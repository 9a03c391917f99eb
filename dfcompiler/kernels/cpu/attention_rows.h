// Attention of few query rows, as in decoding: keys and values stream through once, in place.
//
// A row's scores lie side by side. Each vector of a key is multiplied with every row's query while
// it is in cache, and the lanes of the products of a vector's worth of keys are added up in a
// butterfly. Bound by the bytes of k and v that a query sees: of a cache, its filled part.
#pragma once

#include "attention_panel.h"

namespace dfc::attention {

inline constexpr int FEW = DFC_VECTOR_BYTES / 8;  // rows; more are faster side by side in lanes

namespace detail {

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

}  // namespace detail

template <class T, class Mask>
class FewRows {
  static constexpr int L = lanes<T>;
  static constexpr long BLOCK = 256;  // keys

 public:
  static bool suit(const Sizes& size, Matrix<const T> q, Matrix<const T> k) {
    return size.queries * size.group <= FEW && q.column_stride == 1 && k.column_stride == 1 &&
           size.width % L == 0 && size.width > 0;
  }

  FewRows(const Sizes& size, bool causal, const Mask& mask) : size_(size), mask_(mask) {
    rows_ = int(size.queries * size.group);
    end_ = 0;
    for (int r = 0; r < rows_; ++r) {
      head_[r] = r / size.queries;
      query_[r] = r % size.queries;
      const long horizon = size.keys - size.queries;
      reach_[r] = causal ? std::clamp(query_[r] + horizon + 1, 0L, size.keys) : size.keys;
      end_ = std::max(end_, reach_[r]);
    }
  }

  void run(T scale, Matrix<const T> q, long q_head, Matrix<const T> k, Matrix<const T> v,
           Matrix<T> o, long o_head) {
    trim();
    for (int r = 0; r < rows_; ++r) q_[r] = q.data + head_[r] * q_head + query_[r] * q.row_stride;
    for (long column = 0; column < size_.value_width; column += WIDTH) {
      const long width = std::min(WIDTH, size_.value_width - column);
      const long padded = (width + L - 1) / L * L;
      for (int r = 0; r < rows_; ++r) peak_[r] = lowest<T>, total_[r] = 0;
      for (long t = begin_; t < end_; t += BLOCK) {
        const long keys = std::min(BLOCK, end_ - t);
        const Matrix<const T> values{v.data + t * v.row_stride + column * v.column_stride,
                                     v.row_stride, v.column_stride};
        multiply_keys(keys, {k.data + t * k.row_stride, k.row_stride, 1}, scale);
        for (int r = 0; r < rows_; ++r) weigh(r, t, keys);
        multiply_values(keys, values, width, padded, t > begin_);
      }
      for (int r = 0; r < rows_; ++r)
        detail::write_row(output_ + r * padded, total_[r],
                  o.data + head_[r] * o_head + query_[r] * o.row_stride + column, width);
    }
  }

 private:
  const typename Mask::element* mask_row(int r) const {
    return mask_.data + head_[r] * mask_.head_stride + query_[r] * mask_.row_stride;
  }

  // Leaves out keys at both ends that a mask hides from all rows.
  void trim() {
    begin_ = 0;
    if constexpr (Mask::active) {
      for (const long step : {BLOCK, long(L), 1L}) {
        while (end_ - begin_ >= step && hidden(end_ - step, step)) end_ -= step;
        while (end_ - begin_ >= step && hidden(begin_, step)) begin_ += step;
      }
    }
  }

  bool hidden(long t, long count) const {
    Survey<T, Mask> survey;
    for (int r = 0; r < rows_; ++r)
      if (r == 0 || mask_row(r) != mask_row(r - 1))
        survey.add(mask_row(r) + t * mask_.column_stride, mask_.column_stride, count);
    return survey.cover() == Cover::hidden;
  }

  DFC_OUTLINE void multiply_keys(long keys, Matrix<const T> k, T scale) {
    for (long t = 0; t < keys; t += L) {
      const T* key[L];
      for (int i = 0; i < L; ++i) key[i] = k.data + std::min(t + i, keys - 1) * k.row_stride;
      for (int r = 0; r < rows_; ++r) {
        vec<T> x[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) x[i] = vec<T>{};
        for (long d = 0; d < size_.width; d += L) {
          const vec<T> q = load(q_[r] + d);
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) x[i] += q * load(key[i] + d);
        }
        detail::add_lanes<T, L / 2>(x);
        store(scores_ + r * BLOCK + t, x[0] * scale);
      }
    }
  }

  // Turns the scores of one row into weights; lanes behind the last visible key become zero.
  DFC_OUTLINE void weigh(int r, long t, long keys) {
    T* scores = scores_ + r * BLOCK;
    const long visible = std::clamp(reach_[r] - t, 0L, keys);
    vec_index<T> lane;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) lane[i] = i;
    vec<T> most = splat(peak_[r]);
    for (long j = 0; j < keys; j += L) {
      const int count = int(std::clamp<long>(visible - j, 0, L));
      vec<T> x = load(scores + j);
      if constexpr (Mask::active) {
        const auto* mask = mask_row(r) + (t + j) * mask_.column_stride;
        x = Mask::apply(x, mask_lanes<T>(mask, mask_.column_stride, count));
      }
      x = lane < vec_index<T>{} + count ? x : splat(lowest<T>);
      most = x > most ? x : most;
      store(scores + j, x);
    }
    const T peak = reduce_max<T>(most);
    const T shift = peak == lowest<T> ? T(0) : peak;
    factor_[r] = weight(splat(peak_[r] - shift))[0];
    peak_[r] = peak;
    vec<T> sum{};
    for (long j = 0; j < keys; j += L) {
      const vec<T> w = weight(load(scores + j) - shift);
      sum += w;
      store(scores + j, w);
    }
    total_[r] = total_[r] * factor_[r] + reduce_add<T>(sum);
  }

  // output (+)= weights·v; whole vectors of v in place, what is left of its rows as a copy.
  DFC_OUTLINE void multiply_values(long keys, Matrix<const T> v, long width, long padded,
                                   bool further) {
    const detail::Output<T> update{output_, further ? factor_ : nullptr, padded};
    long j = 0;
    if (v.column_stride == 1) {
      for (; j + 4 * L <= width; j += 4 * L)
        add_rows<4, 4>(0, keys, v.data + j, v.row_stride, update.at(0, j));
      for (; j + L <= width; j += L)
        add_rows<4, 1>(0, keys, v.data + j, v.row_stride, update.at(0, j));
    }
    for (; j < width; j += L) {
      copy_rows(v.data + j * v.column_stride, v.row_stride, v.column_stride, keys,
                std::min<long>(L, width - j), tail_, L);
      add_rows<4, 1>(0, keys, tail_, L, update.at(0, j));
    }
  }

  // Up to R rows of weights at once: values move once for all of them.
  template <int R, int V>
  void add_rows(int row, long keys, const T* v, long row_stride, const detail::Output<T>& update) {
    for (; row + R <= rows_; row += R)
      tile<T, R, V>(keys, ByRows<T>{scores_ + row * BLOCK, BLOCK}, v, row_stride, update.at(row, 0),
                    Ahead{});
    if constexpr (R > 1)
      if (row < rows_) add_rows<R - 1, V>(row, keys, v, row_stride, update);
  }

  Sizes size_;
  Mask mask_;
  int rows_;
  long begin_, end_, head_[FEW], query_[FEW], reach_[FEW];
  const T* q_[FEW];
  T peak_[FEW], total_[FEW], factor_[FEW];
  alignas(64) T scores_[FEW * BLOCK];
  alignas(64) T output_[FEW * WIDTH];
  alignas(64) T tail_[BLOCK * L];
};

}  // namespace dfc::attention
