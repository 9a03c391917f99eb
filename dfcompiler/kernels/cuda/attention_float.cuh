// Products of attention by multiply-adds: 128 threads, 16 along keys or width × 8 along the rows.
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

#include <cstddef>

#include "attention_tiled.cuh"
#include "ptx.h"

namespace dfc::cuda::flash {

__device__ inline float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

template <int WIDTH_, bool FEW>
class FloatProducts {
  static constexpr int R = FEW ? 1 : 8;

 public:
  using Element = float;
  static constexpr int WIDTH = WIDTH_, ROWS = 8 * R, KEYS = 32, THREADS = 128, LANES = 16;
  static constexpr int PITCH = WIDTH + 4, P_PITCH = KEYS + 4;
  static constexpr int OWN_ROWS = R, OWN_SCORES = KEYS / LANES, OWN_COLUMNS = WIDTH / LANES;
  static constexpr std::size_t SHARED =
      (ROWS * (PITCH + P_PITCH) + 4 * KEYS * PITCH) * sizeof(float);

  __device__ static float* buffers() { return weights() + ROWS * P_PITCH; }

  __device__ static int first_row() { return 0; }
  __device__ static int row(int r) { return threadIdx.x / LANES * R + r; }
  __device__ static int key(int i) { return threadIdx.x % LANES + LANES * i; }
  __device__ static int column(int i) {
    return i / SIDE * (LANES * SIDE) + threadIdx.x % LANES * SIDE + i % SIDE;
  }
  __device__ float& score(int r, int i) { return score_[r][i]; }
  __device__ float& output(int r, int i) { return output_[r][i]; }

  // By the threads that read it: rows of q need no alignment.
  __device__ void load_query(int r, const float* q, long step, int width) const {
#pragma unroll
    for (int i = 0; i < OWN_COLUMNS; ++i) {
      const int d = threadIdx.x % LANES + LANES * i;
      queries()[row(r) * PITCH + d] = d < width ? q[d * step] : 0.0f;
    }
  }

  // score = Q·Kᵀ.
  __device__ void multiply_keys(const float* keys) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < OWN_SCORES; ++j) score_[r][j] = 0.0f;
    }
#pragma unroll 4
    for (int d = 0; d < WIDTH; d += 4) {
      float4 k[OWN_SCORES];
#pragma unroll
      for (int j = 0; j < OWN_SCORES; ++j) k[j] = four(keys + key(j) * PITCH + d);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float4 q = four(queries() + row(r) * PITCH + d);
#pragma unroll
        for (int j = 0; j < OWN_SCORES; ++j) {
          float& s = score_[r][j];
          s += q.x * k[j].x;
          s += q.y * k[j].y;
          s += q.z * k[j].z;
          s += q.w * k[j].w;
        }
      }
    }
  }

  // output += P·V; what the lanes of a row write of P only they read.
  __device__ void multiply_values(const float* values) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < OWN_SCORES; ++j) weights()[row(r) * P_PITCH + key(j)] = score_[r][j];
    }
    __syncwarp();
#pragma unroll 2
    for (int k = 0; k < KEYS; k += 4) {
      float v[4][OWN_COLUMNS];
#pragma unroll
      for (int i = 0; i < 4; ++i) load_side(v[i], values + (k + i) * PITCH);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float4 w = four(weights() + row(r) * P_PITCH + k);
#pragma unroll
        for (int c = 0; c < OWN_COLUMNS; ++c) {
          float& o = output_[r][c];
          o += w.x * v[0][c];
          o += w.y * v[1][c];
          o += w.z * v[2][c];
          o += w.w * v[3][c];
        }
      }
    }
    __syncwarp();  // before the weights of the next tile
  }

 private:
  // Columns of a thread that lie side by side; groups of 16 · SIDE.
  static constexpr int SIDE = OWN_COLUMNS < 4 ? OWN_COLUMNS : 4;

  __device__ static float* queries() { return reinterpret_cast<float*>(dynamic_shared()); }
  __device__ static float* weights() { return queries() + ROWS * PITCH; }

  // This thread's columns of a row.
  __device__ static void load_side(float (&v)[OWN_COLUMNS], const float* row) {
#pragma unroll
    for (int c = 0; c < OWN_COLUMNS; c += SIDE) {
      if constexpr (SIDE == 4) {
        const float4 x = four(row + column(c));
        v[c] = x.x, v[c + 1] = x.y, v[c + 2] = x.z, v[c + 3] = x.w;
      } else {
        const float2 x = *reinterpret_cast<const float2*>(row + column(c));
        v[c] = x.x, v[c + 1] = x.y;
      }
    }
  }

  float score_[R][OWN_SCORES];
  float output_[R][OWN_COLUMNS] = {};
};

}  // namespace dfc::cuda::flash
