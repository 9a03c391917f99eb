// Attention of few new tokens over a cache (decode): bound by reading k and v once.
//
//   a row of k or v: LANES neighbouring lanes, 16 bytes each      d = 64, bf16: 8 lanes, 4 keys
//   ┌────────┬────────┬───┬────────┐                              a warp at once, 16 a block
//   │ lane 0 │ lane 1 │ … │ lane 7 │  ─▶ the same lanes of the next key of their own
//   └────────┴────────┴───┴────────┘
//   AHEAD keys of a group of lanes are on their way while as many are multiplied
//
// Every group of lanes has its own keys, and for them the greatest score, the sum of weights and the
// weighted values of all rows: nothing is exchanged but the score, among its lanes, until the keys
// of the block are done. Then parts are weighed against each other, in an order that is always the
// same: groups of a warp by shuffles, warps in shared memory, and the parts of the blocks that share
// a head by the one of them that ends last.
//
// The cache and the new keys and values are read where they lie, and rows are rotated while they
// are loaded: concatenations and rotations take neither a launch nor memory.
//
// Bytes: 2 · keys · d · kv_heads of k and v once. Multiply-adds: 2 · ROWS for each element of k and
// v, 8 flops a byte with ROWS = 8 in 16 bits; 4.8 TB/s then ask for 38 of an H200's 67 TFLOP/s.
// In flight: 128 threads with 2 · AHEAD loads of 16 bytes, 16 KB a block with AHEAD = 4.
// As compiled: 208 registers a thread for 4 rows of 64 elements in bf16, up to 254 for 8 rows, none
// spilled.
#pragma once

#include "attention_rows.cuh"
#include "attention_step.h"
#include "attention_step_parts.cuh"
#include "attention_step_rows.cuh"
#include "launch.h"
#include "workspace.h"

namespace dfc::cuda {
namespace step {

using flash::LOG2_E;

// The keys of a block, and what they give each row.
template <class T, int WIDTH, int ROWS, Rotation rotation, bool CAUSAL>
class Step {
  using S = Shape<T, WIDTH, ROWS>;
  static constexpr int OWN = S::OWN, AHEAD = S::AHEAD;

 public:
  __device__ Step(const AttentionStep<T>& p, const Parts& parts)
      : p_(p),
        parts_(parts),
        head_(p, blockIdx.x),
        keys_(int(p.past + p.fresh)),
        lane_(threadIdx.x % S::LANES) {}

  __device__ void run() {
    const int tiles = (keys_ + S::TILE - 1) / S::TILE;
    const int share = (tiles + parts_.count - 1) / parts_.count;
    const int first = int(blockIdx.y) * share * S::TILE + int(threadIdx.x) / S::LANES;
    const int last = min(keys_, (int(blockIdx.y) + 1) * share * S::TILE);
    uint4 k[AHEAD], v[AHEAD];
    ask(k, v, first, last);
    float q[ROWS][OWN];
    load_queries(q);
    for (int key = first; key - int(threadIdx.x) / S::LANES < last; key += S::TILE) {
      uint4 old_k[AHEAD], old_v[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) old_k[u] = k[u], old_v[u] = v[u];
      ask(k, v, key + S::TILE, last);
      add_keys(q, old_k, old_v, key, last);
    }
    join_groups<S>(shares_);
    store<S>(head_, parts_, shares_);
  }

 private:
  // Starts the loads of AHEAD keys from `key` on, STRIDE apart, in front of `last`: of the cache
  // and of new values. New keys are rotated when they are needed.
  __device__ void ask(uint4 (&k)[AHEAD], uint4 (&v)[AHEAD], int key, int last) const {
    const int past = int(p_.past);
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      const int at = key + u * S::STRIDE;
      k[u] = v[u] = uint4{};
      if (at >= last) continue;
      if (at < past) k[u] = load_chunk(head_.k(at) + lane_ * OWN);
      const T* values = at < past ? head_.v(at) : head_.new_v(at - past);
      v[u] = load_chunk(values + lane_ * OWN);
    }
  }

  // Rows in units of log2 e; zeros for those that the head does not have.
  __device__ void load_queries(float (&q)[ROWS][OWN]) const {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int row = min(r, head_.rows - 1), query = head_.query(row);
      load_rotated<S, rotation>(q[r], head_.q(row), head_.cos(query), head_.sin(query), lane_);
#pragma unroll
      for (int i = 0; i < OWN; ++i) q[r][i] *= p_.scale * LOG2_E;
    }
  }

  // Keys in front of which a row may look.
  __device__ int reach(int r) const {
    const int query = head_.query(min(r, head_.rows - 1));
    return CAUSAL ? keys_ - int(p_.queries) + query + 1 : keys_;
  }

  __device__ void add_keys(const float (&q)[ROWS][OWN], const uint4 (&k)[AHEAD],
                           const uint4 (&v)[AHEAD], int key, int last) {
    float scores[ROWS][AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      const int at = key + u * S::STRIDE, fresh = at - int(p_.past);
      float wide[OWN];
      widen<T>(wide, k[u]);
      if (fresh >= 0 && at < last)
        load_rotated<S, rotation>(wide, head_.new_k(fresh), head_.cos(fresh), head_.sin(fresh),
                                  lane_);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < OWN; ++i) dot = fmaf(q[r][i], wide[i], dot);
#pragma unroll
        for (int bits = S::LANES / 2; bits > 0; bits /= 2)
          dot += __shfl_xor_sync(0xffffffffu, dot, bits);
        scores[r][u] = at < last && at < reach(r) ? dot : HIDDEN;
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      float greatest = scores[r][0], shift;
#pragma unroll
      for (int u = 1; u < AHEAD; ++u) greatest = fmaxf(greatest, scores[r][u]);
      const float factor = shares_[r].total.raise(greatest, shift);
#pragma unroll
      for (int i = 0; i < OWN; ++i) shares_[r].output[i] *= factor;
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) {
        scores[r][u] = exp2_approximate(scores[r][u] - shift);
        shares_[r].total.sum += scores[r][u];
      }
    }
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      float wide[OWN];
      widen<T>(wide, v[u]);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int i = 0; i < OWN; ++i)
          shares_[r].output[i] = fmaf(scores[r][u], wide[i], shares_[r].output[i]);
      }
    }
  }

  const AttentionStep<T>& p_;
  const Parts& parts_;
  const KeyHead<T> head_;
  const int keys_, lane_;
  Share<OWN> shares_[ROWS];
};

template <class T, int WIDTH, int ROWS, Rotation rotation, bool CAUSAL>
__global__ void __launch_bounds__(THREADS)
    attend(const __grid_constant__ Awaited<AttentionStep<T>> given,
           const __grid_constant__ Parts parts) {
  Step<T, WIDTH, ROWS, rotation, CAUSAL> work(given.wait(), parts);
  work.run();
}

// Into how many parts the keys of a head are cut: one tile each, until there are two blocks for each
// multiprocessor.
inline long parts_of(long heads, long tiles, long part_bytes, long multiprocessors) {
  const long room = static_cast<long>(WORKSPACE_BYTES) / part_bytes;
  long parts = 2 * multiprocessors / heads;
  if (parts > tiles) parts = tiles;
  if (parts > room) parts = room;
  if (parts < 1 || heads > WORKSPACE_COUNTERS) return 1;
  const long share = (tiles + parts - 1) / parts;  // no block without keys
  return (tiles + share - 1) / share;
}

}  // namespace step

template <class T, int WIDTH, int ROWS, Rotation rotation, bool CAUSAL>
cudaError_t attention_step(cudaStream_t stream, AttentionStep<T> p) {
  using S = step::Shape<T, WIDTH, ROWS>;
  const long heads = p.batch * p.kv_heads;
  if (heads == 0 || p.queries == 0 || p.past + p.fresh == 0) return cudaSuccess;
  if (heads > 0x7fffffffL || p.heads / p.kv_heads * p.queries > ROWS)
    return cudaErrorInvalidConfiguration;
  int device = 0, multiprocessors = 1;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const long tiles = (p.past + p.fresh + S::TILE - 1) / S::TILE;
  const long bytes = heads * ROWS * S::PITCH * static_cast<long>(sizeof(float));
  step::Parts parts{static_cast<int>(step::parts_of(heads, tiles, bytes, multiprocessors)),
                    nullptr, nullptr};
  if (parts.count > 1) {
    void* block = nullptr;
    error = workspace_of(stream, &block);
    if (error != cudaSuccess) return error;
    parts.partial = static_cast<float*>(block);
    parts.done = counters_of(block);
  }
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(parts.count));
  return launch(step::attend<T, WIDTH, ROWS, rotation, CAUSAL>, grid, dim3(step::THREADS), 0,
                stream, p, parts);
}

}  // namespace dfc::cuda
