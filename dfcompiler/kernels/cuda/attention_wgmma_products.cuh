// Products of attention by wgmma: the registers of a consumer warp group, 64 rows.
//
//   S = Q·Kᵀ   64 × KEYS    Q and K from shared memory, both with the width contiguous
//   O += P·V   64 × WIDTH   P from registers; V from shared memory, its width contiguous: B "along
//                           width" of wgmma.h
//
// A matrix in shared memory is boxes of 64 columns, a row of a box 128 swizzled bytes, as TMA
// writes them. The C fragments of S are the A fragments of P: of 16 keys s, thread i of a group has
// in S elements 8s … 8s + 7, two of row g, two of row g + 8, and both again 8 keys further on; a[0]
// to a[3] are these pairs in that order.
#pragma once

#include <cstring>

#include "warp_group.h"
#include "wgmma.h"

namespace dfc::cuda::flash {

template <int WIDTH_, int CONSUMERS_, int PRODUCER_REGISTERS_, int CONSUMER_REGISTERS_>
struct WgmmaShape {
  static constexpr int WIDTH = WIDTH_, KEYS = 128, STAGES = 2, CONSUMERS = CONSUMERS_;
  static constexpr int ROWS = 64 * CONSUMERS, THREADS = 128 * (CONSUMERS + 1);
  static constexpr int PRODUCER_REGISTERS = PRODUCER_REGISTERS_;
  static constexpr int CONSUMER_REGISTERS = CONSUMER_REGISTERS_;
  static_assert(PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS <=
                (CONSUMERS + 1) * registers_at_start(THREADS));
  static constexpr int BOXES = WIDTH / 64, BOX_ROW = 128;  // bytes of a row of a box
  static constexpr int QUERY_BYTES = BOXES * ROWS * BOX_ROW;
  static constexpr int TILE_BYTES = BOXES * KEYS * BOX_ROW;  // of keys, or of values
};

template <class T>
__device__ inline unsigned rounded_pair_of(float low, float high);
template <>
__device__ inline unsigned rounded_pair_of<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
template <>
__device__ inline unsigned rounded_pair_of<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// Row r of a thread is 8r + g of its warp's 16; elements i of a row are two of each 8.
template <class Shape, class T>
class WgmmaProducts {
 public:
  static constexpr int OWN_SCORES = Shape::KEYS / 4, OWN_COLUMNS = Shape::WIDTH / 4;

  __device__ static int row(int r) {
    return threadIdx.x / 32 % 4 * 16 + 8 * r + threadIdx.x % 32 / 4;
  }
  __device__ static int key(int i) { return i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2; }
  __device__ static int column(int i) { return key(i); }
  __device__ float& score(int r, int i) { return scores_[i / 2 * 4 + r * 2 + i % 2]; }
  __device__ float& output(int r, int i) { return output_[i / 2 * 4 + r * 2 + i % 2]; }

  // Starts S = Q·Kᵀ; `queries` is the first of the group's rows.
  __device__ void start_scores(const unsigned char* queries, const unsigned char* keys) {
    const Descriptor q = make_descriptor(queries, 16, 1024), k = make_descriptor(keys, 16, 1024);
    wgmma_begin();
#pragma unroll
    for (int c = 0; c < Shape::WIDTH / 16; ++c) {
      const int box = c / 4, inside = c % 4 * 32;
      wgmma_m64k16<false>(scores_, advanced(q, box * Shape::ROWS * Shape::BOX_ROW + inside),
                   advanced(k, box * Shape::KEYS * Shape::BOX_ROW + inside), T{}, c > 0);
    }
    wgmma_commit();
  }

  // Starts O += P·V.
  __device__ void start_output(const unsigned char* values) {
    const Descriptor v = make_descriptor(values, Shape::KEYS * Shape::BOX_ROW, 1024);
    wgmma_begin();
#pragma unroll
    for (int s = 0; s < Shape::KEYS / 16; ++s)
      wgmma_m64k16<true>(output_, weights_[s], advanced(v, s * 16 * Shape::BOX_ROW), T{}, true);
    wgmma_commit();
  }

  // Until the scores are there; O may still be in work.
  template <int pending>
  __device__ void wait_for_scores() {
    wgmma_wait<pending>();
    keep_in_place(scores_);
  }
  __device__ void wait_for_output() {
    wgmma_wait<0>();
    keep_in_place(output_);
  }

  // P = what the scores have become, rounded to T.
  __device__ void keep_weights() {
#pragma unroll
    for (int s = 0; s < Shape::KEYS / 16; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weights_[s][i] = rounded_pair_of<T>(scores_[8 * s + 2 * i], scores_[8 * s + 2 * i + 1]);
    }
  }

 private:
  float scores_[Shape::KEYS / 2];
  unsigned weights_[Shape::KEYS / 16][4];
  float output_[Shape::WIDTH / 2] = {};
};

}  // namespace dfc::cuda::flash
