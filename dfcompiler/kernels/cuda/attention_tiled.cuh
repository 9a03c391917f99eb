// Attention of a tile of rows by one block: the walk over the keys, the online softmax, the end.
//
//   for each tile of keys    S = Q·Kᵀ          Products: on tensor cores, or by multiply-adds
//                            hide, weigh       here: each row's greatest score and sum of weights
//                            O += P·V          Products
//   in the end               O / Σ w, or one part of it where keys are split
//
// Online softmax: each tile raises the greatest score of a row, and what was summed before shrinks
// by 2^(old - new).
//
// Products have the scores S and the output O in the registers of the threads. Of ROWS rows, KEYS
// keys and WIDTH columns a thread has OWN_ROWS rows, and of these OWN_SCORES keys and OWN_COLUMNS
// columns; LANES neighbouring lanes of one warp have the rest of its rows. Products tell which:
//
//   row(r), first_row()                   of the tile; no row of the warp lies before the first
//   key(i), column(i)                     of the tile's keys; of the row
//   score(r, i), output(r, i)             the registers
//   load_query(r, q, step, width)         keeps row r of Q, elements `step` apart
//   multiply_keys(k), multiply_values(v)  from shared memory
//   buffers()                             four tiles of keys or values in shared memory
#pragma once

#include <cstdint>
#include <cstring>

#include "attention_keys.cuh"
#include "attention_rows.cuh"
#include "storage.h"

namespace dfc::cuda::flash {

template <class T>
__device__ inline unsigned pair_of(T low, T high) {
  unsigned short bits[2];
  memcpy(&bits[0], &low, 2);
  memcpy(&bits[1], &high, 2);
  return bits[0] | static_cast<unsigned>(bits[1]) << 16;
}

template <class T>
__device__ inline unsigned rounded_pair(float low, float high) {
  return pair_of(from_float<T>(low), from_float<T>(high));
}

// A thread's columns of row r, times `factor`, to a row of `width` elements; neighbours of 16 bits at
// once where they are aligned to that.
template <class Products, class To>
__device__ inline void put_row(Products& own, int r, To* to, float factor, int width) {
  constexpr int COLUMNS = Products::OWN_COLUMNS;
  if constexpr (sizeof(To) == 2) {
    if (reinterpret_cast<std::uintptr_t>(to) % 4 == 0 && width % 2 == 0) {
#pragma unroll
      for (int i = 0; i < COLUMNS; i += 2) {
        if (Products::column(i) >= width) continue;
        *reinterpret_cast<unsigned*>(to + Products::column(i)) =
            rounded_pair<To>(own.output(r, i) * factor, own.output(r, i + 1) * factor);
      }
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < COLUMNS; ++i) {
    if (Products::column(i) < width)
      to[Products::column(i)] = from_float<To>(own.output(r, i) * factor);
  }
}

template <class Products, class M, bool CAUSAL>
class TiledAttention {
  using T = typename Products::Element;
  static constexpr int ROWS = Products::OWN_ROWS, SCORES = Products::OWN_SCORES;
  static constexpr int COLUMNS = Products::OWN_COLUMNS, LANES = Products::LANES;

 public:
  __device__ TiledAttention(const Attention<T, M>& p, const Split& split, int tile, int index)
      : head_(p, index), split_(split), index_(index), first_(tile * Products::ROWS) {
    block_reach_ = head_.template reach<CAUSAL>(seen(first_ + Products::ROWS - 1));
    least_reach_ = head_.template reach<CAUSAL>(seen(first_ + Products::first_row()));
#pragma unroll
    for (int r = 0; r < ROWS; ++r) sight_[r] = sight_of<CAUSAL>(head_, seen(row(r)));
  }

  __device__ void run() {
    const KeyWalk<Products, T, M> tiles(head_, Products::buffers(), block_reach_, split_.splits);
    tiles.start();
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
      own_.load_query(r, head_.q(seen(row(r))), head_.p.q_strides[3], int(head_.p.width));
    tiles.each([&](const T* keys, const T* values, int first, Cover cover) {
      own_.multiply_keys(keys);
      if (weigh(first, cover)) own_.multiply_values(values);
    });
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int bits = LANES / 2; bits > 0; bits /= 2)
        total_[r].sum += __shfl_xor_sync(0xffffffffu, total_[r].sum, bits);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (row(r) < head_.rows) write_row(r);
    }
  }

 private:
  __device__ int row(int r) const { return first_ + Products::row(r); }
  // In place of a row behind the last one, that one again.
  __device__ int seen(int row) const { return min(row, head_.rows - 1); }

  // Scores become weights, and what was summed before shrinks to them; false if the warp sees none
  // of these keys.
  __device__ bool weigh(int key, Cover cover) {
    // The factor of scores that nothing hides goes into their exponent.
    const float scale = head_.p.scale * LOG2_E;
    const bool whole =
        cover == Cover::clear && key + Products::KEYS <= least_reach_ && scale > 0.0f;
    if (!whole && !hide_scores(key, scale)) return false;
    const float unit = whole ? scale : 1.0f;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      float greatest = HIDDEN;
#pragma unroll
      for (int i = 0; i < SCORES; ++i) greatest = fmaxf(greatest, own_.score(r, i));
#pragma unroll
      for (int bits = LANES / 2; bits > 0; bits /= 2)
        greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, bits));
      float shift;
      const float factor = total_[r].raise(greatest * unit, shift);
#pragma unroll
      for (int i = 0; i < SCORES; ++i) {
        float& score = own_.score(r, i);
        score = exp2_approximate(fmaf(score, unit, -shift));
        total_[r].sum += score;
      }
#pragma unroll
      for (int i = 0; i < COLUMNS; ++i) own_.output(r, i) *= factor;
    }
    return true;
  }

  // Scores in units of log2 e, hidden ones -inf; false if the warp sees none of them.
  __device__ bool hide_scores(int key, float scale) {
    bool shown = false;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int i = 0; i < SCORES; ++i) {
        float& score = own_.score(r, i);
        score = sight_[r](score * scale, key + Products::key(i), head_.p.mask_strides[3]);
        shown |= score != HIDDEN;
      }
    }
    return __any_sync(0xffffffffu, shown);
  }

  __device__ void write_row(int r) {
    const int width = int(head_.p.value_width);
    if (split_.splits == 1) {
      put_row(own_, r, head_.o(row(r)), total_[r].inverse(), width);
      return;
    }
    const long heads = head_.p.batch * head_.p.kv_heads;
    const long place = (blockIdx.y * heads + index_) * head_.rows + row(r);
    float* to = split_.partial + place * (width + 2);
    put_row(own_, r, to, 1.0f, width);
    if (threadIdx.x % LANES == 0) to[width] = total_[r].peak, to[width + 1] = total_[r].sum;
  }

  const Head<T, M> head_;
  const Split& split_;
  int index_, first_, block_reach_, least_reach_;
  Sight<M> sight_[ROWS];
  Total total_[ROWS];
  Products own_;
};

}  // namespace dfc::cuda::flash
