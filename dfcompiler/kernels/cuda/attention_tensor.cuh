// Products of attention on tensor cores, 16-bit elements: 16 · STACK rows a warp, WARPS warps.
//
//            K tile [64, d]            V tile [64, d]         both twice in shared memory: the next
//          ┌───────────────┐         ┌───────────────┐        one comes by cp.async while this one
//     Q    │   ldmatrix    │   S     │ ldmatrix.trans│   O    is multiplied
//   ┌────┐ ├───────────────┤ ┌────┐  ├───────────────┤ ┌────┐
//   │ 16 │→│  mma m16n8k16 │→│exp2│ →│  mma m16n8k16 │→│ 16 │  Q, S and O stay in registers: the
//   └────┘ └───────────────┘ └────┘  └───────────────┘ └────┘  C fragments of S are A ones of P
//
// Weights are rounded to T for the second product, their sum is of floats.
//
// Flops and bytes of a tile, for one warp: 4·16·STACK·64·d flops against 2·64·d·2 bytes from shared
// memory, 16·STACK flops a byte. A multiprocessor of sm_80 does 2048 flops and reads 128 bytes in a
// cycle: balanced at STACK = 1, bound by the tensor cores at 2. Registers, of 255: O and Q take
// STACK·(d/2 + d/4), S 32·STACK: two stacks up to d = 64, one for 128. A tile of keys is read once
// for 64·STACK rows, 64·STACK flops a byte, mostly from the L2.
// Rows are padded by 16 bytes, so that 8 rows of an ldmatrix lie in different banks.
#pragma once

#include <cstddef>

#include "attention_tiled.cuh"
#include "ptx.h"

namespace dfc::cuda::flash {

template <class T, int WIDTH_, bool FEW>
class TensorProducts {
 public:
  using Element = T;
  static constexpr int WIDTH = WIDTH_, KEYS = 64, PITCH = WIDTH + 8;
  static constexpr int WARPS = FEW ? 1 : 4, STACK = !FEW && WIDTH <= 64 ? 2 : 1;
  static constexpr int ROWS = 16 * STACK * WARPS, THREADS = 32 * WARPS;
  static constexpr int LANES = 4, OWN_ROWS = 2 * STACK, OWN_SCORES = KEYS / LANES;
  static constexpr int OWN_COLUMNS = WIDTH / LANES;
  static constexpr std::size_t SHARED = std::size_t(4) * KEYS * PITCH * sizeof(T);

  __device__ static T* buffers() { return reinterpret_cast<T*>(dynamic_shared()); }

  // C fragments: rows g and g + 8 of 16, columns 2t and 2t + 1 of 8.
  __device__ static int first_row() { return threadIdx.x / 32 * (16 * STACK); }
  __device__ static int row(int r) { return first_row() + 8 * r + lane() / 4; }
  __device__ static int key(int i) { return i / 2 * 8 + lane() % 4 * 2 + i % 2; }
  __device__ static int column(int i) { return key(i); }
  __device__ float& score(int r, int i) { return score_[r / 2][i / 2][r % 2 * 2 + i % 2]; }
  __device__ float& output(int r, int i) { return output_[r / 2][i / 2][r % 2 * 2 + i % 2]; }

  // A fragments: of row r, elements 2t, 2t + 1 and those 8 further on.
  __device__ void load_query(int r, const T* q, long step, int width) {
    const T zero = from_float<T>(0.0f);
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int c = s * 16 + half * 8 + lane() % 4 * 2;
        query_[r / 2][s][half * 2 + r % 2] =
            pair_of(c < width ? q[c * step] : zero, c + 1 < width ? q[(c + 1) * step] : zero);
      }
    }
  }

  // score = Q·Kᵀ: 16 keys and 16 of the width with each ldmatrix.
  __device__ void multiply_keys(const T* keys) {
    const T* own = keys + (lane() / 16 * 8 + lane() % 8) * PITCH + lane() / 8 % 2 * 8;
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

  // output += P·V: 16 keys and 16 columns with each ldmatrix.
  __device__ void multiply_values(const T* values) {
    const T* own = values + lane() % 16 * PITCH + lane() / 16 * 8;
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

 private:
  static constexpr int STEPS = WIDTH / 16, COLUMNS = WIDTH / 8, BLOCKS = KEYS / 8;

  __device__ static int lane() { return threadIdx.x % 32; }

  unsigned query_[STACK][STEPS][4];
  float score_[STACK][BLOCKS][4];
  float output_[STACK][COLUMNS][4] = {};
};

}  // namespace dfc::cuda::flash
