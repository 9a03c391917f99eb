// What a block of attention of few new tokens (attention_step.cuh) makes of its keys: parts, and o.
//
//   groups of lanes ─shuffles─▶ warps ─shared memory─▶ block ─▶ o, where it has all keys of its head
//                                                        └──▶ partial ─ the last block ─▶ o
//
// Parts are weighed against each other in an order that is always the same.
//
// Bytes: (WIDTH + 2) floats for each row of a part, written once and read once, past the L1.
#pragma once

#include "attention_rows.cuh"
#include "attention_step_rows.cuh"
#include "last_block.cuh"

namespace dfc::cuda::step {

using flash::HIDDEN;
using flash::Total;

// Parts of the keys of a head, one for each block.
//
// Attributes:
//   partial: [parts, batch · kv_heads, ROWS, WIDTH + 2] floats: Σ w·v, peak, Σ w.
//   done: for each key head, how many of its blocks have ended; zero between kernels.
struct Parts {
  int count;
  float* partial;
  unsigned* done;
};

// What some keys give a row: relative to the greatest score, the sum of weights and of w·v.
template <int OWN>
struct Share {
  Total total;
  float output[OWN] = {};

  // Takes what other keys gave in: on both sides of an exchange the result is the same.
  __device__ void join(float peak, float sum, const float (&other)[OWN]) {
    const float next = fmaxf(total.peak, peak), shift = next == HIDDEN ? 0.0f : next;
    const float mine = exp2_approximate(total.peak - shift), theirs = exp2_approximate(peak - shift);
    total.peak = next;
    total.sum = total.sum * mine + sum * theirs;
#pragma unroll
    for (int i = 0; i < OWN; ++i) output[i] = output[i] * mine + other[i] * theirs;
  }
};

// One element of a row from `count` parts, `stride` floats apart; 8 of them are asked for at once.
// Returns o; `peak` and `sum` are those of all parts.
template <class Read>
__device__ inline float joined(const float* part, long stride, int count, int width, int d,
                               float& peak, float& sum, const Read& read) {
  constexpr int BATCH = 8;
  Share<1> all;
  for (int first = 0; first < count; first += BATCH) {
    float peaks[BATCH], sums[BATCH], values[BATCH][1];
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
      const bool there = first + i < count;
      const float* from = part + (there ? first + i : 0) * stride;
      peaks[i] = there ? read(from + width) : HIDDEN;
      sums[i] = there ? read(from + width + 1) : 0.0f;
      values[i][0] = there ? read(from + d) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < BATCH; ++i) all.join(peaks[i], sums[i], values[i]);
  }
  peak = all.total.peak;
  sum = all.total.sum;
  return all.output[0];
}

// What all groups of a warp have, in each of them.
template <class S>
__device__ inline void join_groups(Share<S::OWN> (&shares)[S::ROWS]) {
#pragma unroll
  for (int bits = S::LANES; bits < 32; bits *= 2) {
#pragma unroll
    for (int r = 0; r < S::ROWS; ++r) {
      Share<S::OWN>& mine = shares[r];
      const float peak = __shfl_xor_sync(0xffffffffu, mine.total.peak, bits);
      const float sum = __shfl_xor_sync(0xffffffffu, mine.total.sum, bits);
      float other[S::OWN];
#pragma unroll
      for (int i = 0; i < S::OWN; ++i)
        other[i] = __shfl_xor_sync(0xffffffffu, mine.output[i], bits);
      mine.join(peak, sum, other);
    }
  }
}

// visit(row, element, Σ w·v, peak, Σ w) for `rows` rows from `count` parts, `apart` floats apart.
template <class S, class Read, class Visit>
__device__ inline void each_element(int rows, const float* parts, long apart, int count,
                                    const Read& read, const Visit& visit) {
  for (int i = threadIdx.x; i < rows * S::WIDTH; i += THREADS) {
    const int row = i / S::WIDTH, d = i % S::WIDTH;
    float peak, sum;
    const float value =
        joined(parts + row * S::PITCH, apart, count, S::WIDTH, d, peak, sum, read);
    visit(row, d, value, peak, sum);
  }
}

// Puts the shares of the warps together: into o, or into the block's part, and the last block of the
// head puts the parts into o.
template <class S, class T>
__device__ inline void store(const KeyHead<T>& head, const Parts& parts,
                             const Share<S::OWN> (&shares)[S::ROWS]) {
  __shared__ float shared[WARPS][S::ROWS][S::PITCH];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % S::LANES;
  if (int(threadIdx.x) % 32 < S::LANES) {
#pragma unroll
    for (int r = 0; r < S::ROWS; ++r) {
      float* to = shared[warp][r];
#pragma unroll
      for (int i = 0; i < S::OWN; ++i) to[lane * S::OWN + i] = shares[r].output[i];
      if (lane == 0) to[S::WIDTH] = shares[r].total.peak, to[S::WIDTH + 1] = shares[r].total.sum;
    }
  }
  __syncthreads();
  const auto here = [](const float* from) { return *from; };
  const auto put = [&](int row, int d, float value, float, float sum) {
    head.o(row)[d] = from_float<T>(sum == 0.0f ? 0.0f : value / sum);
  };
  if (parts.count == 1) {
    each_element<S>(head.rows, &shared[0][0][0], S::ROWS * S::PITCH, WARPS, here, put);
    return;
  }
  const long apart = head.p.batch * head.p.kv_heads * S::ROWS * S::PITCH;
  float* own = parts.partial + long(head.index) * S::ROWS * S::PITCH;
  float* part = own + blockIdx.y * apart;
  each_element<S>(head.rows, &shared[0][0][0], S::ROWS * S::PITCH, WARPS, here,
                  [&](int row, int d, float value, float peak, float sum) {
                    float* to = part + row * S::PITCH;
                    to[d] = value;
                    if (d == 0) to[S::WIDTH] = peak, to[S::WIDTH + 1] = sum;
                  });
  if (!is_last_block(parts.done + head.index, parts.count)) return;
  each_element<S>(head.rows, own, apart, parts.count,
                  [](const float* from) { return __ldcg(from); }, put);
}

}  // namespace dfc::cuda::step
