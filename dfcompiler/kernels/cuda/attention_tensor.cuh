// Attention of 16-bit elements by tensor cores: a warp has 16 · STACK rows, a block WARPS of them.
//
//            K tile [64, d]            V tile [64, d]         both twice in shared memory: the next
//          ┌───────────────┐         ┌───────────────┐        one comes by cp.async while this one
//     Q    │   ldmatrix    │   S     │ ldmatrix.trans│   O    is multiplied
//   ┌────┐ ├───────────────┤ ┌────┐  ├───────────────┤ ┌────┐
//   │ 16 │→│  mma m16n8k16 │→│exp2│ →│  mma m16n8k16 │→│ 16 │  Q, S and O stay in registers: the
//   └────┘ └───────────────┘ └────┘  └───────────────┘ └────┘  C fragments of S are A ones of P
//
// Online softmax: each tile raises the greatest score of a row, and what was summed before shrinks
// by 2^(old - new). Weights are rounded to T for the second product, their sum is of floats.
//
// Flops and bytes of a tile, for one warp: 4·16·STACK·64·d flops against 2·64·d·2 bytes from shared
// memory, 16·STACK flops a byte. A multiprocessor of sm_80 does 2048 flops and reads 128 bytes in a
// cycle: balanced at STACK = 1, bound by the tensor cores at 2. Registers, of 255: O and Q take
// STACK·(d/2 + d/4), S 32·STACK: two stacks up to d = 64, one for 128. A tile of keys is read once
// for 64·STACK rows, 64·STACK flops a byte, mostly from the L2.
// Rows are padded by 16 bytes, so that 8 rows of an ldmatrix lie in different banks.
#pragma once

#include "attention_rows.cuh"

namespace dfc::cuda::flash {

template <class T, int WIDTH, bool FEW>
struct TensorTile {
  static constexpr int WARPS = FEW ? 1 : 4, STACK = !FEW && WIDTH <= 64 ? 2 : 1;
  static constexpr int ROWS = 16 * STACK * WARPS, KEYS = 64, PITCH = WIDTH + 8;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr std::size_t SHARED = std::size_t(4) * KEYS * PITCH * sizeof(T);
};

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

template <class T, class M, int WIDTH, bool CAUSAL, bool FEW>
class TensorAttention {
  using Tile = TensorTile<T, WIDTH, FEW>;
  static constexpr int STACK = Tile::STACK, KEYS = Tile::KEYS, PITCH = Tile::PITCH;
  static constexpr int STEPS = WIDTH / 16, COLUMNS = WIDTH / 8, BLOCKS = KEYS / 8;

 public:
  __device__ TensorAttention(const Attention<T, M>& p, const Split& split, int tile, int index)
      : head_(p, index), split_(split), index_(index) {
    lane_ = threadIdx.x % 32;
    first_ = tile * Tile::ROWS + threadIdx.x / 32 * (16 * STACK);
    const int last = min((tile + 1) * Tile::ROWS, head_.rows) - 1;
    block_reach_ = head_.template reach<CAUSAL>(last);
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) sight_[m][h] = sight_of<CAUSAL>(head_, row(m, h));
    }
    least_reach_ = head_.template reach<CAUSAL>(min(first_, head_.rows - 1));
  }

  __device__ void run() {
    const Attention<T, M>& p = head_.p;
    using Copy = TileCopy<KEYS, WIDTH, PITCH, Tile::THREADS, T>;
    const SharedMask<T, M> mask(head_);
    const int end = mask.end(block_reach_);
    const Copy keys(head_.k(), p.k_strides, end, p.width);
    const Copy values(head_.v(), p.v_strides, end, p.value_width);
    const Tiles tiles = tiles_of<KEYS>(end, blockIdx.y, split_.splits);
    if (tiles.begin < tiles.end) copy(keys, values, tiles.begin);
    load_queries();
    for (int t = tiles.begin; t < tiles.end; ++t) {
      const Cover cover = mask.template cover<KEYS>(t * KEYS);
      cp_async_wait<0>();
      __syncthreads();  // the tile is there, and nobody reads the other buffer any more
      if (t + 1 < tiles.end) copy(keys, values, t + 1);
      if (cover == Cover::hidden) continue;
      multiply_keys(buffer(t));
      if (weigh(t * KEYS, cover)) multiply_values(buffer(t) + KEYS * PITCH);
    }
    finish();
  }

 private:
  // A row of this thread: fragments have rows g and g + 8. Behind the last one, that one again.
  __device__ int own_row(int m, int h) const { return first_ + m * 16 + h * 8 + lane_ / 4; }
  __device__ int row(int m, int h) const { return min(own_row(m, h), head_.rows - 1); }
  __device__ T* buffer(int t) const {
    return reinterpret_cast<T*>(dynamic_shared()) + t % 2 * (2 * KEYS * PITCH);
  }

  template <class Copy>
  __device__ void copy(const Copy& keys, const Copy& values, int t) const {
    keys(buffer(t), t * KEYS);
    values(buffer(t) + KEYS * PITCH, t * KEYS);
    cp_async_commit();
  }

  __device__ void load_queries() {
    const Attention<T, M>& p = head_.p;
    const long step = p.q_strides[3];
    const T zero = from_float<T>(0.0f);
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const T* q = head_.q(row(m, i % 2));
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
          const int c = s * 16 + i / 2 * 8 + lane_ % 4 * 2;
          query_[m][s][i] = pair_of(c < p.width ? q[c * step] : zero,
                                    c + 1 < p.width ? q[(c + 1) * step] : zero);
        }
      }
    }
  }

  // score = Q·Kᵀ: 16 keys and 16 of the width with each ldmatrix.
  __device__ void multiply_keys(const T* keys) {
    const T* own = keys + (lane_ / 16 * 8 + lane_ % 8) * PITCH + lane_ / 8 % 2 * 8;
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
      for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score_[m][n][i] = 0.0f;
      }
    }
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
#pragma unroll
      for (int n = 0; n < BLOCKS; n += 2) {
        unsigned b[4];
        ldmatrix_x4(b, own + n * 8 * PITCH + s * 16);
#pragma unroll
        for (int m = 0; m < STACK; ++m) {
          mma_m16n8k16(score_[m][n], query_[m][s], {b[0], b[1]}, T{});
          mma_m16n8k16(score_[m][n + 1], query_[m][s], {b[2], b[3]}, T{});
        }
      }
    }
  }

  // Scores become weights, and what was summed before shrinks to them; false if the warp sees none
  // of these keys.
  __device__ bool weigh(int key, Cover cover) {
    // The factor of scores that nothing hides goes into their exponent.
    const float scale = head_.p.scale * LOG2_E;
    const bool whole = cover == Cover::clear && key + KEYS <= least_reach_ && scale > 0.0f;
    if (!whole && !hide_scores(key, scale)) return false;
    const float unit = whole ? scale : 1.0f;
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float greatest = HIDDEN;
#pragma unroll
        for (int n = 0; n < BLOCKS; ++n)
          greatest = fmaxf(greatest, fmaxf(score_[m][n][2 * h], score_[m][n][2 * h + 1]));
        greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, 1));
        greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, 2));
        float shift;
        const float factor = total_[m][h].raise(greatest * unit, shift);
#pragma unroll
        for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i) {
            score_[m][n][i] = exp2_approximate(fmaf(score_[m][n][i], unit, -shift));
            total_[m][h].sum += score_[m][n][i];
          }
        }
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
          output_[m][c][2 * h] *= factor;
          output_[m][c][2 * h + 1] *= factor;
        }
      }
    }
    return true;
  }

  // Scores in units of log2 e, hidden ones -inf; false if the warp sees none of them.
  __device__ bool hide_scores(int key, float scale) {
    bool seen = false;
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
      for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int own = key + n * 8 + lane_ % 4 * 2 + i % 2;
          float& x = score_[m][n][i];
          x = sight_[m][i / 2](x * scale, own, head_.p.mask_strides[3]);
          seen |= x != HIDDEN;
        }
      }
    }
    return __any_sync(0xffffffffu, seen);
  }

  // output += P·V: 16 keys and 16 columns with each ldmatrix.
  __device__ void multiply_values(const T* values) {
    const T* own = values + lane_ % 16 * PITCH + lane_ / 16 * 8;
#pragma unroll
    for (int s = 0; s < KEYS / 16; ++s) {
      unsigned a[STACK][4];
#pragma unroll
      for (int m = 0; m < STACK; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* two = &score_[m][2 * s + i / 2][i % 2 * 2];
          a[m][i] = rounded_pair<T>(two[0], two[1]);
        }
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; c += 2) {
        unsigned b[4];
        ldmatrix_x4_trans(b, own + s * 16 * PITCH + c * 8);
#pragma unroll
        for (int m = 0; m < STACK; ++m) {
          mma_m16n8k16(output_[m][c], a[m], {b[0], b[1]}, T{});
          mma_m16n8k16(output_[m][c + 1], a[m], {b[2], b[3]}, T{});
        }
      }
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        Total& total = total_[m][h];
        total.sum += __shfl_xor_sync(0xffffffffu, total.sum, 1);
        total.sum += __shfl_xor_sync(0xffffffffu, total.sum, 2);
        if (own_row(m, h) < head_.rows) write_row(m, h, total);
      }
    }
  }

  __device__ void write_row(int m, int h, const Total& total) const {
    const int width = int(head_.p.value_width), row = own_row(m, h);
    if (split_.splits > 1) {
      const long heads = head_.p.batch * head_.p.kv_heads;
      const long place = (blockIdx.y * heads + index_) * head_.rows + row;
      float* to = split_.partial + place * (width + 2);
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int column = c * 8 + lane_ % 4 * 2;
        if (column < width) to[column] = output_[m][c][2 * h];
        if (column + 1 < width) to[column + 1] = output_[m][c][2 * h + 1];
      }
      if (lane_ % 4 == 0) to[width] = total.peak, to[width + 1] = total.sum;
      return;
    }
    T* to = head_.o(row);
    const float inverse = total.inverse();
    const bool pairs = reinterpret_cast<std::uintptr_t>(to) % 4 == 0 && width % 2 == 0;
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const int column = c * 8 + lane_ % 4 * 2;
      const float low = output_[m][c][2 * h] * inverse, high = output_[m][c][2 * h + 1] * inverse;
      if (pairs) {
        if (column < width) *reinterpret_cast<unsigned*>(to + column) = rounded_pair<T>(low, high);
      } else {
        if (column < width) to[column] = from_float<T>(low);
        if (column + 1 < width) to[column + 1] = from_float<T>(high);
      }
    }
  }

  const Head<T, M> head_;
  const Split& split_;
  int index_, first_, block_reach_, least_reach_, lane_;
  Sight<M> sight_[STACK][2];
  unsigned query_[STACK][STEPS][4];
  float score_[STACK][BLOCKS][4];
  float output_[STACK][COLUMNS][4] = {};
  Total total_[STACK][2];
};

}  // namespace dfc::cuda::flash
