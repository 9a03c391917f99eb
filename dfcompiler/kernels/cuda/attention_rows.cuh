// What the attention kernels share: rows of one key head, what they may see, what they add up.
//
//   rows of one key head          row = query · group + member: the query heads that share keys lie
//   q0h0 q0h1 │ q1h0 q1h1 │ …     side by side, so that a tile reads each key once for all of them
//
// A row sees the keys in front of its reach. Scores are kept in units of log2 e, because the
// hardware's exponential is a power of two.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "attention.h"
#include "predecessor.h"
#include "ptx.h"
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

}  // namespace dfc::cuda::flash
