// Attention of bfloat16 queries, keys and values by matrix tiles (AMX); softmax in float.
//
// The panel of attention_panel.h, 64 queries side by side, with its two products on tiles:
//
//   scores[key, query] = k·qᵀ       tile A: rows of k in place; tile B: pairs of qᵀ, made once
//   output[element, query] += vᵀ·P  tile A: vᵀ of 128 keys, transposed in registers;
//                                   tile B: pairs of weights, rounded to bfloat16
//
// Both results have a lane for each query, so that scaling, peaks, sums and rescaling run down the
// lanes; the output is transposed back once at the end. Sums of weights are taken before rounding.
#pragma once

#include <algorithm>
#include <cstring>

#include "amx.h"
#include "attention_panel.h"
#include "bf16.h"

namespace dfc::attention {

#ifdef __AMX_BF16__

namespace detail {

// Words of two neighbours: lane i holds low[i] and, above it, high[i].
DFC_INLINE vfloat interleave(dfc::detail::bf16_bits low, dfc::detail::bf16_bits high) {
  return vfloat(vint(dfc::detail::widen(high)) |
                vint((__builtin_bit_cast(vint, dfc::detail::widen(low)) >> 16) & 0xffff));
}

DFC_INLINE dfc::detail::bf16_bits bits_at(const bf16* p) {
  return *reinterpret_cast<const dfc::detail::bf16_bits_unaligned*>(p);
}

}  // namespace detail

// Head widths must be multiples of 32, at most WIDTH, and rows of q, k and v contiguous.
template <class Mask>
class TilePanel : Panel<float, Mask> {
  using Base = Panel<float, Mask>;
  static constexpr long L = 16;  // queries of a tile
  static constexpr long SCORE_BYTES = PANEL * sizeof(float);
  static constexpr long STEP = 32;  // what one tile instruction sums over

 public:
  using Base::Base;

  void run(float scale, Matrix<const bf16> q, long q_head, Matrix<const bf16> k,
           Matrix<const bf16> v, Matrix<bf16> o, long o_head) {
    configure();
    this->trim();
    this->begin();
    pack_queries(q, q_head);
    for (long t = this->begin_; t < this->end_; t += KEYS) {
      this->count_keys(t);
      const Cover cover = this->cover_of_block(t);
      if (cover == Cover::hidden) continue;
      multiply_keys(k, t);
      scale_scores(scale);
      this->weigh(t, cover);
      pack_weights();
      pack_values(v, t);
      multiply_values();
    }
    amx::release();
    write(o, o_head);
  }

 private:
  static void configure() {
    amx::Configuration sizes;
    for (int tile = 0; tile < 8; ++tile) sizes.row_bytes[tile] = 64, sizes.rows[tile] = 16;
    amx::configure(sizes);
  }

  // An even number of tiles of queries; lanes behind the last query repeat it.
  long tiles() const { return (this->vectors_ + 1) / 2 * 2; }
  long keys() const { return this->keys_[this->vectors_ - 1]; }
  long padded_keys() const { return (keys() + STEP - 1) / STEP * STEP; }

  void pack_queries(Matrix<const bf16> q, long q_head) {
    for (long tile = 0; tile < tiles(); ++tile)
      for (long c = 0; c < this->size_.width; c += 2 * L) {
        vfloat x[L];
        for (long i = 0; i < L; ++i) {
          const long lane = std::min(tile * L + i, this->rows_ - 1);
          x[i] = load(reinterpret_cast<const float*>(
              q.data + this->head_[lane] * q_head + this->query_[lane] * q.row_stride + c));
        }
        dfc::detail::exchange<float, L / 2>(x);
        for (long i = 0; i < L; ++i) store(this->queries_ + (c / 2 + i) * PANEL + tile * L, x[i]);
      }
  }

  // scores[key, lane] = k·qᵀ for whole tiles of keys; those behind the last are zero.
  void multiply_keys(Matrix<const bf16> k, long t) {
    const long width = this->size_.width;
    for (long key = 0; key < keys(); key += 2 * L) {
      const bf16* rows = k.data + (t + key) * k.row_stride;
      long stride = k.row_stride;
      const long there = this->size_.keys - t - key;
      if (there < 2 * L) {
        std::memset(static_cast<void*>(last_rows_), 0, 2 * L * width * sizeof(bf16));
        for (long i = 0; i < there; ++i)
          std::memcpy(static_cast<void*>(last_rows_ + i * width), rows + i * stride,
                      width * sizeof(bf16));
        rows = last_rows_;
        stride = width;
      }
      for (long tile = 0; tile < tiles(); tile += 2) {
        const float* queries = this->queries_ + tile * L;
        amx::zero<0>();
        amx::zero<1>();
        amx::zero<2>();
        amx::zero<3>();
        for (long c = 0; c < width; c += STEP) {
          amx::load<6>(queries + c / 2 * PANEL, SCORE_BYTES);
          amx::load<7>(queries + c / 2 * PANEL + L, SCORE_BYTES);
          amx::load<4>(rows + c, stride * 2);
          amx::multiply_add<0, 4, 6>();
          amx::multiply_add<1, 4, 7>();
          amx::load<5>(rows + L * stride + c, stride * 2);
          amx::multiply_add<2, 5, 6>();
          amx::multiply_add<3, 5, 7>();
        }
        store_tiles(this->scores_ + key * PANEL + tile * L);
      }
    }
  }

  static DFC_INLINE void store_tiles(float* to) {
    amx::store<0>(to, SCORE_BYTES);
    amx::store<1>(to + L, SCORE_BYTES);
    amx::store<2>(to + L * PANEL, SCORE_BYTES);
    amx::store<3>(to + L * PANEL + L, SCORE_BYTES);
  }

  // Scores times the scale, and the greatest of each lane.
  void scale_scores(float scale) {
    const vfloat factor = splat(scale);
    for (long v = 0; v < this->vectors_; ++v) {
      vfloat top[2] = {splat(lowest<float>), splat(lowest<float>)};
      float* scores = this->scores_ + v * L;
      for (long key = 0; key < this->keys_[v]; ++key) {
        const vfloat x = load(scores + key * PANEL) * factor;
        vfloat& most = top[key % 2];
        most = x > most ? x : most;
        store(scores + key * PANEL, x);
      }
      store(this->top_ + v * L, top[0] > top[1] ? top[0] : top[1]);
    }
  }

  void pack_weights() {
    for (long key = keys(); key < padded_keys(); ++key)
      std::memset(static_cast<void*>(this->scores_ + key * PANEL), 0, SCORE_BYTES);
    for (long pair = 0; pair < padded_keys() / 2; ++pair)
      for (long v = 0; v < tiles(); ++v) {
        const float* scores = this->scores_ + 2 * pair * PANEL + v * L;
        const auto low = dfc::detail::narrow(load(scores));
        const auto high = dfc::detail::narrow(load(scores + PANEL));
        store(weights_ + pair * PANEL + v * L, detail::interleave(low, high));
      }
  }

  // vᵀ of the block's keys: rows of KEYS elements; keys behind the last are zero.
  void pack_values(Matrix<const bf16> v, long t) {
    for (long key = 0; key < keys(); key += STEP)
      for (long c = 0; c < this->size_.value_width; c += L) {
        vfloat x[L];
        for (long i = 0; i < L; ++i) {
          const bf16* rows = v.data + (t + key + 2 * i) * v.row_stride + c;
          const long there = this->size_.keys - (t + key + 2 * i);
          const dfc::detail::bf16_bits none{};
          x[i] = detail::interleave(there > 0 ? detail::bits_at(rows) : none,
                                    there > 1 ? detail::bits_at(rows + v.row_stride) : none);
        }
        dfc::detail::exchange<float, L / 2>(x);
        for (long i = 0; i < L; ++i)
          store(reinterpret_cast<float*>(values_ + (c + i) * KEYS + key), x[i]);
      }
  }

  // output[element, lane] = output·factor + vᵀ·weights.
  void multiply_values() {
    float* output = this->output_;
    const long padded = padded_keys();
    for (long tile = 0; tile < tiles(); tile += 2) {
      const vfloat factor[2] = {load(this->factor_ + tile * L), load(this->factor_ + tile * L + L)};
      for (long c = 0; c < this->size_.value_width; c += 2 * L) {
        float* to = output + c * PANEL + tile * L;
        if (this->first_) {
          amx::zero<0>();
          amx::zero<1>();
          amx::zero<2>();
          amx::zero<3>();
        } else {
          for (long i = 0; i < 2 * L; ++i)
            for (long v = 0; v < 2; ++v)
              store(to + i * PANEL + v * L, load(to + i * PANEL + v * L) * factor[v]);
          amx::load<0>(to, SCORE_BYTES);
          amx::load<1>(to + L, SCORE_BYTES);
          amx::load<2>(to + L * PANEL, SCORE_BYTES);
          amx::load<3>(to + L * PANEL + L, SCORE_BYTES);
        }
        for (long key = 0; key < padded; key += STEP) {
          const float* weights = weights_ + key / 2 * PANEL + tile * L;
          amx::load<6>(weights, SCORE_BYTES);
          amx::load<7>(weights + L, SCORE_BYTES);
          amx::load<4>(values_ + c * KEYS + key, KEYS * 2);
          amx::multiply_add<0, 4, 6>();
          amx::multiply_add<1, 4, 7>();
          amx::load<5>(values_ + (c + L) * KEYS + key, KEYS * 2);
          amx::multiply_add<2, 5, 6>();
          amx::multiply_add<3, 5, 7>();
        }
        store_tiles(to);
      }
    }
    this->first_ = false;
  }

  void write(Matrix<bf16> o, long o_head) {
    for (long v = 0; v < this->vectors_; ++v)
      for (long c = 0; c < this->size_.value_width; c += L) {
        vfloat x[L];
        for (long i = 0; i < L; ++i) x[i] = load(this->output_ + (c + i) * PANEL + v * L);
        dfc::detail::exchange<float, L / 2>(x);
        for (long i = 0; i < std::min(L, this->rows_ - v * L); ++i) {
          const long lane = v * L + i;
          const float total = this->total_[lane];
          bf16* to =
              o.data + this->head_[lane] * o_head + this->query_[lane] * o.row_stride + c;
          store(to, total == 0 ? vfloat{} : x[i] * (1 / total));
        }
      }
  }

  alignas(64) float weights_[KEYS / 2 * PANEL];  // pairs of bfloat16
  alignas(64) bf16 values_[WIDTH * KEYS];
  alignas(64) bf16 last_rows_[2 * L * WIDTH];
};

// Task `index` of one key head. q, mask and o point to the first query head of the group.
template <class Mask>
void tile_task(long index, const Sizes& size, float scale, bool causal, Matrix<const bf16> q,
               long q_head, Matrix<const bf16> k, Matrix<const bf16> v, const Mask& mask,
               Matrix<bf16> o, long o_head) {
  const long tasks = (size.group * size.queries + PANEL - 1) / PANEL;
  if (causal) index = index % 2 ? tasks - 1 - index / 2 : index / 2;
  const long row0 = index * PANEL;
  const long rows = std::min(PANEL, size.group * size.queries - row0);
  TilePanel<Mask> panel(row0, rows, size, causal, mask);
  panel.run(scale, q, q_head, k, v, o, o_head);
}

#endif

}  // namespace dfc::attention
