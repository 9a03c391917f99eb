// Attention of one row by one warp, for any width and type: head widths over 128, and doubles.
//
//   q, o: element d in lane d % 32      k, v: rows of 32 · CHUNKS elements, one element a lane
//
// A score is one butterfly over the lanes; four keys at a time are under way together. Each row
// reads all its keys from the L2, 2 operations for each element: bound by that, and far slower than
// the tiled kernels.
#pragma once

#include "attention_rows.cuh"

namespace dfc::cuda::flash {

template <class T>
using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ inline float power_of_two(float x) { return exp2_approximate(x); }
__device__ inline double power_of_two(double x) { return exp2(x); }

inline constexpr int WARP_ROWS = 4;  // of a block: one for each warp

template <class T, class M, int CHUNKS, bool CAUSAL>
class WarpAttention {
  using A = Arithmetic<T>;
  static constexpr int AHEAD = 4;

 public:
  __device__ WarpAttention(const Attention<T, M>& p, int row, int index)
      : head_(p, index), row_(row), lane_(threadIdx.x % 32) {}

  __device__ void run() {
    const Attention<T, M>& p = head_.p;
    constexpr A hidden = -std::numeric_limits<A>::infinity();
    const A scale = A(p.scale) * A(1.4426950408889634074);
    A q[CHUNKS], output[CHUNKS] = {}, peak = hidden, sum = 0;
    load(q, head_.q(row_), p.q_strides[3], p.width);
    const int reach = head_.template reach<CAUSAL>(row_);
    for (int first = 0; first < reach; first += AHEAD) {
      const int count = reach - first < AHEAD ? reach - first : AHEAD;
      A scores[AHEAD], greatest = hidden;
#pragma unroll
      for (int i = 0; i < AHEAD; ++i) {
        const int key = first + (i < count ? i : 0);
        scores[i] = score(q, key) * scale;
        scores[i] = i < count ? masked(scores[i], key) : hidden;
        greatest = scores[i] > greatest ? scores[i] : greatest;
      }
      const A next = greatest > peak ? greatest : peak, shift = next == hidden ? A(0) : next;
      const A factor = power_of_two(peak - shift);
      peak = next;
      sum *= factor;
#pragma unroll
      for (int c = 0; c < CHUNKS; ++c) output[c] *= factor;
#pragma unroll
      for (int i = 0; i < AHEAD; ++i) {
        const A weight = power_of_two(scores[i] - shift);
        sum += weight;
        if (i >= count || weight == A(0)) continue;
        A v[CHUNKS];
        load(v, head_.v() + (first + i) * p.v_strides[2], p.v_strides[3], p.value_width);
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) output[c] += weight * v[c];
      }
    }
    const A inverse = sum == A(0) ? A(0) : A(1) / sum;
    T* o = head_.o(row_);
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      const int d = c * 32 + lane_;
      if (d < p.value_width) o[d] = T(output[c] * inverse);
    }
  }

 private:
  __device__ void load(A (&to)[CHUNKS], const T* from, long step, long width) const {
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      const int d = c * 32 + lane_;
      to[c] = d < width ? A(from[d * step]) : A(0);
    }
  }

  __device__ A score(const A (&q)[CHUNKS], int key) const {
    const Attention<T, M>& p = head_.p;
    A k[CHUNKS], dot = 0;
    load(k, head_.k() + key * p.k_strides[2], p.k_strides[3], p.width);
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) dot += q[c] * k[c];
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, bits);
    return dot;
  }

  __device__ A masked(A score, int key) const {
    constexpr A hidden = -std::numeric_limits<A>::infinity();
    if constexpr (std::is_same_v<M, NoMask>) {
      return score;
    } else {
      const M mask = head_.mask(row_)[key * head_.p.mask_strides[3]];
      if constexpr (std::is_same_v<M, bool>) {
        return mask ? score : hidden;
      } else {
        return A(mask) == hidden ? hidden : score + A(mask) * A(1.4426950408889634074);
      }
    }
  }

  const Head<T, M> head_;
  int row_, lane_;
};

}  // namespace dfc::cuda::flash
