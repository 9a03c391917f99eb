// What the attention kernels share: rows of one key head, what they may see, tiles of keys.
//
//   rows of one key head          row = query · group + member: the query heads that share keys lie
//   q0h0 q0h1 │ q1h0 q1h1 │ …     side by side, so that a tile reads each key once for all of them
//
// A row sees the keys in front of its reach; tiles beyond the reach of their last row are not read.
// Scores are kept in units of log2 e, because the hardware's exponential is a power of two.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "attention.h"
#include "ptx.h"
#include "rows.h"
#include "storage.h"

namespace dfc::cuda::flash {

inline constexpr float LOG2_E = 1.44269504088896341f;
inline constexpr float HIDDEN = -std::numeric_limits<float>::infinity();

// Where the blocks of a launch put what they have: o, or one part of several.
//
// Attributes:
//   splits: parts of the keys; with 1 the block writes o.
//   partial: [splits, batch · kv_heads, rows, value_width + 2] floats: Σ w·v, peak, Σ w.
struct Split {
  int splits;
  float* partial;
};

// One key head of one batch index.
template <class T, class M>
struct Head {
  const Attention<T, M>& p;
  int batch, head, group, rows;

  __device__ Head(const Attention<T, M>& p, int index)
      : p(p),
        batch(index / int(p.kv_heads)),
        head(index % int(p.kv_heads)),
        group(int(p.heads) / int(p.kv_heads)),
        rows(group * int(p.queries)) {}

  __device__ int query(int row) const { return row / group; }
  __device__ int query_head(int row) const { return head * group + row % group; }
  __device__ const T* q(int row) const {
    return p.q + batch * p.q_strides[0] + query_head(row) * p.q_strides[1] +
           query(row) * p.q_strides[2];
  }
  __device__ const T* k() const { return p.k + batch * p.k_strides[0] + head * p.k_strides[1]; }
  __device__ const T* v() const { return p.v + batch * p.v_strides[0] + head * p.v_strides[1]; }
  __device__ T* o(int row) const {
    return p.o + batch * p.o_strides[0] + query_head(row) * p.o_strides[1] +
           query(row) * p.o_strides[2];
  }
  __device__ const M* mask(int row) const {
    if constexpr (std::is_same_v<M, NoMask>) {
      return nullptr;
    } else {
      return p.mask + batch * p.mask_strides[0] + query_head(row) * p.mask_strides[1] +
             query(row) * p.mask_strides[2];
    }
  }
  // Keys in front of which a row may look.
  template <bool CAUSAL>
  __device__ int reach(int row) const {
    const int keys = int(p.keys);
    if constexpr (CAUSAL) {
      const int end = query(row) + keys - int(p.queries) + 1;
      return end < 0 ? 0 : end < keys ? end : keys;
    } else {
      return keys;
    }
  }
};

// What a row makes of its scores.
template <class M>
struct Sight {
  const M* mask;
  int reach;

  // A score in units of log2 e, of any key; `step` elements from one key's mask to the next.
  __device__ float operator()(float score, int key, long step) const {
    if (key >= reach) return HIDDEN;
    if constexpr (std::is_same_v<M, NoMask>) {
      return score;
    } else if constexpr (std::is_same_v<M, bool>) {
      return mask[key * step] ? score : HIDDEN;
    } else {
      const float added = to_float(mask[key * step]);
      return added == HIDDEN ? HIDDEN : score + added * LOG2_E;
    }
  }
};

template <bool CAUSAL, class T, class M>
__device__ Sight<M> sight_of(const Head<T, M>& head, int row) {
  return {head.mask(row), head.template reach<CAUSAL>(row)};
}

// The greatest score of a row so far and the sum of its weights, relative to it.
struct Total {
  float peak = HIDDEN, sum = 0.0f;

  // Takes a new greatest score in; returns what earlier weights shrink to, and what is subtracted
  // from scores: zero while nothing is visible, because -inf - -inf is not a number.
  __device__ float raise(float greatest, float& shift) {
    const float next = fmaxf(peak, greatest);
    shift = next == HIDDEN ? 0.0f : next;
    const float factor = exp2_approximate(peak - shift);
    peak = next;
    sum *= factor;
    return factor;
  }
  // What the weighted values are multiplied by in the end.
  __device__ float inverse() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
};

// The tiles of keys that this block walks: its share of those that its last row can see.
struct Tiles {
  int begin, end;
};

template <int KEYS>
__device__ inline Tiles tiles_of(int reach, int split, int splits) {
  const int seen = (reach + KEYS - 1) / KEYS, share = (seen + splits - 1) / splits;
  const int end = (split + 1) * share;
  return {split * share, end < seen ? end : seen};
}

// What a mask does to the scores of a tile of keys, for all rows alike.
enum class Cover { clear, mixed, hidden };

// A mask without a stride along rows, as padding and the free end of a cache make them: its tiles
// are looked through once, by all threads together, instead of score by score.
template <class T, class M>
class SharedMask {
 public:
  __device__ explicit SharedMask(const Head<T, M>& head)
      : mask_(head.mask(0)), step_(head.p.mask_strides[3]), keys_(int(head.p.keys)) {
    shared_ = head.p.mask_strides[1] == 0 && head.p.mask_strides[2] == 0;
  }

  // Keys in front of which something is shown, at most `reach`. All threads of the block call it.
  __device__ int end(int reach) const {
    if constexpr (std::is_same_v<M, NoMask>) {
      return reach;
    } else {
      if (!shared_) return reach;
      int found = 0;
      for (int key = threadIdx.x; key < reach; key += blockDim.x) {
        if (shows(mask_[key * step_])) found = key + 1;
      }
      return rows::block_fold(found, 0, rows::Greater{});
    }
  }

  // All lanes of the warp call it.
  template <int KEYS>
  __device__ Cover cover(int first) const {
    if constexpr (std::is_same_v<M, NoMask>) {
      return Cover::clear;
    } else {
      if (!shared_) return Cover::mixed;
      bool clear = true, shown = false;
#pragma unroll
      for (int i = 0; i < KEYS; i += 32) {
        const int key = first + i + int(threadIdx.x) % 32;
        if (key >= keys_) continue;
        const M mask = mask_[key * step_];
        clear &= leaves(mask);
        shown |= shows(mask);
      }
      if (__all_sync(0xffffffffu, clear)) return Cover::clear;
      return __any_sync(0xffffffffu, shown) ? Cover::mixed : Cover::hidden;
    }
  }

 private:
  __device__ static bool shows(M mask) {
    if constexpr (std::is_same_v<M, bool>) return mask;
    else return to_float(mask) != HIDDEN;
  }
  __device__ static bool leaves(M mask) {
    if constexpr (std::is_same_v<M, bool>) return mask;
    else return to_float(mask) == 0.0f;
  }

  const M* mask_;
  long step_;
  int keys_;
  bool shared_;
};

// Copies rows [first, first + ROWS) of a matrix to shared memory, `PITCH` elements apart, by all
// threads; zeros beyond its rows and columns. 16 bytes at a time, in the background, where
// everything is aligned to that: a thread has one column of these, and every STEP-th row.
template <int ROWS, int WIDTH, int PITCH, int THREADS, class T>
class TileCopy {
  static constexpr int PACK = 16 / sizeof(T), ACROSS = WIDTH / PACK, STEP = THREADS / ACROSS;
  static_assert(THREADS % ACROSS == 0 && ROWS % STEP == 0);

 public:
  __device__ TileCopy(const T* data, const long (&strides)[4], long rows, long width)
      : data_(data), strides_(strides), rows_(int(rows)), width_(int(width)) {
    aligned_ = strides[3] == 1 && strides[2] % PACK == 0 && width % PACK == 0 &&
               reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  }

  __device__ void operator()(T* to, int first) const {
    if (!aligned_) {
      elements(to, first);
      return;
    }
    const int c = threadIdx.x % ACROSS * PACK, r = threadIdx.x / ACROSS;
    const T* from = data_ + (first + r) * strides_[2] + c;
    to += r * PITCH + c;
    int left = c < width_ ? rows_ - first - r : 0;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; ++i) {
      cp_async_16(to + i * STEP * PITCH, left > 0 ? from : data_, left > 0 ? 16 : 0);
      from += STEP * strides_[2];
      left -= STEP;
    }
  }

 private:
  __device__ void elements(T* to, int first) const {
    for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
      const int r = i / WIDTH, c = i % WIDTH;
      const bool inside = first + r < rows_ && c < width_;
      to[r * PITCH + c] = inside ? data_[(first + r) * strides_[2] + c * strides_[3]]
                                 : from_float<T>(0.0f);
    }
  }

  const T* data_;
  const long (&strides_)[4];
  int rows_, width_;
  bool aligned_;
};

}  // namespace dfc::cuda::flash
