// Attention of floats by multiply-adds: 128 threads, 16 along keys or width × 8 along the rows.
//
//              K tile [32, d]                V tile [32, d]        both twice, by cp.async
//     Q      ┌───────────────┐     P       ┌───────────────┐    O
//   ┌──────┐ │ thread (x, y) │   ┌──────┐  │ thread (x, y) │  ┌──────┐
//   │ 8·R  │ │ has keys x,   │ → │ 8·R  │→ │ has d / 16    │→ │ 8·R  │   in registers: S, O
//   │ rows │ │ x + 16 of R   │   │ rows │  │ columns of R  │  │ rows │   in shared memory: QKV, P
//   └──────┘ │ rows          │   └──────┘  │ rows          │  └──────┘
//            └───────────────┘             └───────────────┘
//
// A row belongs to 16 neighbouring lanes, which find its greatest score and its sum in four
// shuffles; what they write of P only they read. Of 4 elements of the width, a thread makes 4·2·R
// multiply-adds from R + 2 loads of 16 bytes; with R = 8 a warp issues 64 of them in 16 cycles and
// its loads take 12 (those of Q and P are the same address for 16 lanes): bound by the multiply-
// adds. R = 1 is for few rows, as in decoding, where reading k and v from memory is the bound.
// Rows of K and Q are padded by 16 bytes, so that 8 lanes read 8 different banks of 16 bytes.
#pragma once

#include "attention_rows.cuh"

namespace dfc::cuda::flash {

template <int WIDTH, bool FEW>
struct FloatTile {
  static constexpr int R = FEW ? 1 : 8, ROWS = 8 * R, KEYS = 32, THREADS = 128;
  static constexpr int PITCH = WIDTH + 4, P_PITCH = KEYS + 4;
  static constexpr int FLOATS = ROWS * (PITCH + P_PITCH) + 4 * KEYS * PITCH;
  static constexpr std::size_t SHARED = FLOATS * sizeof(float);
};

__device__ inline float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

template <class M, int WIDTH, bool CAUSAL, bool FEW>
class FloatAttention {
  using Tile = FloatTile<WIDTH, FEW>;
  static constexpr int R = Tile::R, KEYS = Tile::KEYS, PITCH = Tile::PITCH, P_PITCH = Tile::P_PITCH;
  static constexpr int OWN_KEYS = KEYS / 16, COLUMNS = WIDTH / 16;
  // Columns of a thread that lie side by side; groups of 16 · SIDE.
  static constexpr int SIDE = COLUMNS < 4 ? COLUMNS : 4;

 public:
  __device__ FloatAttention(const Attention<float, M>& p, const Split& split, int tile, int index)
      : head_(p, index), split_(split), index_(index) {
    x_ = threadIdx.x % 16;
    local_ = threadIdx.x / 16 * R;
    tile_row_ = tile * Tile::ROWS;
    block_reach_ = head_.template reach<CAUSAL>(min(tile_row_ + Tile::ROWS, head_.rows) - 1);
    least_reach_ = head_.template reach<CAUSAL>(tile_row_);
#pragma unroll
    for (int r = 0; r < R; ++r) sight_[r] = sight_of<CAUSAL>(head_, row(r));
    q_ = reinterpret_cast<float*>(dynamic_shared());
    weights_ = q_ + Tile::ROWS * PITCH;
    buffers_ = weights_ + Tile::ROWS * P_PITCH;
  }

  __device__ void run() {
    const Attention<float, M>& p = head_.p;
    using Copy = TileCopy<KEYS, WIDTH, PITCH, Tile::THREADS, float>;
    const SharedMask<float, M> mask(head_);
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
      if (!weigh(t * KEYS, cover)) continue;
      __syncwarp();
      multiply_values(buffer(t) + KEYS * PITCH);
      __syncwarp();
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int bits = 8; bits > 0; bits /= 2)
        total_[r].sum += __shfl_xor_sync(0xffffffffu, total_[r].sum, bits);
      if (tile_row_ + local_ + r < head_.rows) write_row(r);
    }
  }

 private:
  __device__ int row(int r) const { return min(tile_row_ + local_ + r, head_.rows - 1); }
  __device__ float* buffer(int t) const { return buffers_ + t % 2 * (2 * KEYS * PITCH); }
  __device__ static int column(int c) {
    return c / SIDE * (16 * SIDE) + threadIdx.x % 16 * SIDE + c % SIDE;
  }

  template <class Copy>
  __device__ void copy(const Copy& keys, const Copy& values, int t) const {
    keys(buffer(t), t * KEYS);
    values(buffer(t) + KEYS * PITCH, t * KEYS);
    cp_async_commit();
  }

  // By the threads that read it: rows of q need no alignment.
  __device__ void load_queries() {
    const long step = head_.p.q_strides[3];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float* q = head_.q(row(r));
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int d = c * 16 + x_;
        q_[(local_ + r) * PITCH + d] = d < head_.p.width ? q[d * step] : 0.0f;
      }
    }
  }

  __device__ void multiply_keys(const float* keys) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < OWN_KEYS; ++j) score_[r][j] = 0.0f;
    }
#pragma unroll 4
    for (int d = 0; d < WIDTH; d += 4) {
      float4 k[OWN_KEYS];
#pragma unroll
      for (int j = 0; j < OWN_KEYS; ++j) k[j] = four(keys + (x_ + 16 * j) * PITCH + d);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float4 q = four(q_ + (local_ + r) * PITCH + d);
#pragma unroll
        for (int j = 0; j < OWN_KEYS; ++j) {
          float& s = score_[r][j];
          s += q.x * k[j].x;
          s += q.y * k[j].y;
          s += q.z * k[j].z;
          s += q.w * k[j].w;
        }
      }
    }
  }

  // Scores in units of log2 e, hidden ones -inf; false if the warp sees none of them.
  __device__ bool hide_scores(int key, float scale) {
    bool seen = false;
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < OWN_KEYS; ++j) {
        float& x = score_[r][j];
        x = sight_[r](x * scale, key + x_ + 16 * j, head_.p.mask_strides[3]);
        seen |= x != HIDDEN;
      }
    }
    return __any_sync(0xffffffffu, seen);
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
    for (int r = 0; r < R; ++r) {
      float greatest = HIDDEN;
#pragma unroll
      for (int j = 0; j < OWN_KEYS; ++j) greatest = fmaxf(greatest, score_[r][j]);
#pragma unroll
      for (int bits = 8; bits > 0; bits /= 2)
        greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, bits));
      float shift;
      const float factor = total_[r].raise(greatest * unit, shift);
#pragma unroll
      for (int j = 0; j < OWN_KEYS; ++j) {
        const float weight = exp2_approximate(fmaf(score_[r][j], unit, -shift));
        total_[r].sum += weight;
        weights_[(local_ + r) * P_PITCH + x_ + 16 * j] = weight;
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) output_[r][c] *= factor;
    }
    return true;
  }

  __device__ void multiply_values(const float* values) {
#pragma unroll 2
    for (int k = 0; k < KEYS; k += 4) {
      float v[4][COLUMNS];
#pragma unroll
      for (int i = 0; i < 4; ++i) load_side(v[i], values + (k + i) * PITCH);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float4 w = four(weights_ + (local_ + r) * P_PITCH + k);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
          float& o = output_[r][c];
          o += w.x * v[0][c];
          o += w.y * v[1][c];
          o += w.z * v[2][c];
          o += w.w * v[3][c];
        }
      }
    }
  }

  // This thread's columns of a row.
  __device__ static void load_side(float (&v)[COLUMNS], const float* row) {
#pragma unroll
    for (int c = 0; c < COLUMNS; c += SIDE) {
      if constexpr (SIDE == 4) {
        const float4 x = four(row + column(c));
        v[c] = x.x, v[c + 1] = x.y, v[c + 2] = x.z, v[c + 3] = x.w;
      } else {
        const float2 x = *reinterpret_cast<const float2*>(row + column(c));
        v[c] = x.x, v[c + 1] = x.y;
      }
    }
  }

  __device__ void write_row(int r) const {
    const int width = int(head_.p.value_width), row = tile_row_ + local_ + r;
    const Total& total = total_[r];
    const bool parts = split_.splits > 1;
    const long heads = head_.p.batch * head_.p.kv_heads;
    float* to = parts ? split_.partial +
                            ((blockIdx.y * heads + index_) * head_.rows + row) * (width + 2)
                      : head_.o(row);
    const float factor = parts ? 1.0f : total.inverse();
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      if (column(c) < width) to[column(c)] = output_[r][c] * factor;
    }
    if (parts && x_ == 0) to[width] = total.peak, to[width + 1] = total.sum;
  }

  const Head<float, M> head_;
  const Split& split_;
  int index_, tile_row_, block_reach_, least_reach_, x_, local_;
  float *q_, *weights_, *buffers_;
  Sight<M> sight_[R];
  float score_[R][OWN_KEYS];
  float output_[R][COLUMNS] = {};
  Total total_[R];
};

}  // namespace dfc::cuda::flash
