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
// As compiled: 201 registers a thread for 4 rows of 64 elements in bf16, 166 to 254 for 8 rows, none
// spilled.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "attention_rows.cuh"
#include "attention_step.h"
#include "gemm_vector_depth.cuh"
#include "last_block.cuh"
#include "launch.h"
#include "workspace.h"

namespace dfc::cuda {
namespace step {

using flash::HIDDEN;
using flash::LOG2_E;
using flash::Total;

inline constexpr int THREADS = 128, WARPS = THREADS / 32;

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

// How the threads of a block share keys of WIDTH elements.
template <class T, int WIDTH, int ROWS>
struct Shape {
  static constexpr int OWN = 16 / sizeof(T), LANES = WIDTH / OWN, GROUPS = 32 / LANES;
  static constexpr int AHEAD = ROWS > 4 ? 2 : 4, STRIDE = WARPS * GROUPS, TILE = AHEAD * STRIDE;
  static constexpr int PITCH = WIDTH + 2;
  static_assert(WIDTH % OWN == 0 && LANES >= 2 && LANES <= 32 && 32 % LANES == 0);
};

// This lane's 16 bytes of a row as floats.
template <class T, int OWN>
__device__ inline void widen(float (&to)[OWN], const uint4& chunk) {
#pragma unroll
  for (int i = 0; i < OWN; ++i) to[i] = element_of<T>(chunk, i);
}

// The same of the row rotated by its angles; `lane` counts the lanes of a row.
template <class S, Rotation rotation, class T>
__device__ inline void load_rotated(float (&to)[S::OWN], const T* row, const T* cos, const T* sin,
                                    int lane) {
  widen<T>(to, load_chunk(row + lane * S::OWN));
  if constexpr (rotation == Rotation::halves) {
    constexpr int HALF = S::LANES / 2;
    const int angle = lane % HALF * S::OWN, partner = (lane + HALF) % S::LANES * S::OWN;
    float other[S::OWN], c[S::OWN], s[S::OWN];
    widen<T>(other, load_chunk(row + partner));
    widen<T>(c, load_chunk(cos + angle));
    widen<T>(s, load_chunk(sin + angle));
    const float sign = lane < HALF ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < S::OWN; ++i) to[i] = to[i] * c[i] + sign * other[i] * s[i];
  }
  if constexpr (rotation == Rotation::interleaved) {
#pragma unroll
    for (int i = 0; i < S::OWN; i += 2) {
      const int angle = (lane * S::OWN + i) / 2;
      const float c = to_float(cos[angle]), s = to_float(sin[angle]), first = to[i];
      to[i] = first * c - to[i + 1] * s;
      to[i + 1] = to[i + 1] * c + first * s;
    }
  }
}

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

template <class T, int WIDTH, int ROWS, Rotation rotation, bool CAUSAL>
class Step {
  using S = Shape<T, WIDTH, ROWS>;
  static constexpr int OWN = S::OWN, AHEAD = S::AHEAD;

 public:
  __device__ Step(const AttentionStep<T>& p, const Parts& parts)
      : p_(p),
        parts_(parts),
        index_(blockIdx.x),
        batch_(index_ / int(p.kv_heads)),
        head_(index_ % int(p.kv_heads)),
        group_(int(p.heads / p.kv_heads)),
        rows_(group_ * int(p.queries)),
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
    join_groups();
    store();
  }

 private:
  template <class Pointer>
  __device__ Pointer row_of(Pointer data, const long (&strides)[3], int head, int row) const {
    return data + batch_ * strides[0] + head * strides[1] + row * strides[2];
  }
  __device__ const T* cos_of(int row) const {
    return p_.cos + batch_ * p_.cos_strides[0] + row * p_.cos_strides[1];
  }
  __device__ const T* sin_of(int row) const {
    return p_.sin + batch_ * p_.sin_strides[0] + row * p_.sin_strides[1];
  }

  // Starts the loads of AHEAD keys from `key` on, STRIDE apart, in front of `last`: of the cache
  // and of new values. New keys are rotated when they are needed.
  __device__ void ask(uint4 (&k)[AHEAD], uint4 (&v)[AHEAD], int key, int last) const {
    const int past = int(p_.past);
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      const int at = key + u * S::STRIDE;
      k[u] = v[u] = uint4{};
      if (at >= last) continue;
      if (at < past) k[u] = load_chunk(row_of(p_.k, p_.k_strides, head_, at) + lane_ * OWN);
      const T* values = at < past ? row_of(p_.v, p_.v_strides, head_, at)
                                  : row_of(p_.new_v, p_.new_v_strides, head_, at - past);
      v[u] = load_chunk(values + lane_ * OWN);
    }
  }

  // Rows in units of log2 e; zeros for those that the head does not have.
  __device__ void load_queries(float (&q)[ROWS][OWN]) const {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int row = min(r, rows_ - 1), query = row / group_;
      const T* from = row_of(p_.q, p_.q_strides, head_ * group_ + row % group_, query);
      load_rotated<S, rotation>(q[r], from, cos_of(query), sin_of(query), lane_);
#pragma unroll
      for (int i = 0; i < OWN; ++i) q[r][i] *= p_.scale * LOG2_E;
    }
  }

  // Keys in front of which a row may look.
  __device__ int reach(int r) const {
    const int query = min(r, rows_ - 1) / group_;
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
        load_rotated<S, rotation>(wide, row_of(p_.new_k, p_.new_k_strides, head_, fresh),
                                  cos_of(fresh), sin_of(fresh), lane_);
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

  __device__ void join_groups() {
#pragma unroll
    for (int bits = S::LANES; bits < 32; bits *= 2) {
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        Share<OWN>& mine = shares_[r];
        const float peak = __shfl_xor_sync(0xffffffffu, mine.total.peak, bits);
        const float sum = __shfl_xor_sync(0xffffffffu, mine.total.sum, bits);
        float other[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i)
          other[i] = __shfl_xor_sync(0xffffffffu, mine.output[i], bits);
        mine.join(peak, sum, other);
      }
    }
  }

  __device__ void store() const {
    __shared__ float shared[WARPS][ROWS][S::PITCH];
    const int warp = threadIdx.x / 32;
    if (int(threadIdx.x) % 32 < S::LANES) {
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        float* to = shared[warp][r];
#pragma unroll
        for (int i = 0; i < OWN; ++i) to[lane_ * OWN + i] = shares_[r].output[i];
        if (lane_ == 0) to[WIDTH] = shares_[r].total.peak, to[WIDTH + 1] = shares_[r].total.sum;
      }
    }
    __syncthreads();
    const auto here = [](const float* from) { return *from; };
    if (parts_.count == 1) {
      each_element(&shared[0][0][0], ROWS * S::PITCH, WARPS, here,
                   [&](int row, int d, float value, float, float sum) {
                     put(row, d, sum == 0.0f ? 0.0f : value / sum);
                   });
      return;
    }
    const long heads = p_.batch * p_.kv_heads, apart = heads * ROWS * S::PITCH;
    float* own = parts_.partial + long(index_) * ROWS * S::PITCH;
    float* part = own + blockIdx.y * apart;
    each_element(&shared[0][0][0], ROWS * S::PITCH, WARPS, here,
                 [&](int row, int d, float value, float peak, float sum) {
                   part[row * S::PITCH + d] = value;
                   if (d == 0) {
                     part[row * S::PITCH + WIDTH] = peak;
                     part[row * S::PITCH + WIDTH + 1] = sum;
                   }
                 });
    if (!is_last_block(parts_.done + index_, parts_.count)) return;
    each_element(own, apart, parts_.count, [](const float* from) { return __ldcg(from); },
                 [&](int row, int d, float value, float, float sum) {
                   put(row, d, sum == 0.0f ? 0.0f : value / sum);
                 });
  }

  // visit(row, element, Σ w·v, peak, Σ w) for the rows from `count` parts.
  template <class Read, class Visit>
  __device__ void each_element(const float* parts, long apart, int count, const Read& read,
                               const Visit& visit) const {
    for (int i = threadIdx.x; i < rows_ * WIDTH; i += THREADS) {
      const int row = i / WIDTH, d = i % WIDTH;
      float peak, sum;
      const float value =
          joined(parts + row * S::PITCH, apart, count, WIDTH, d, peak, sum, read);
      visit(row, d, value, peak, sum);
    }
  }

  __device__ void put(int row, int d, float value) const {
    T* to = row_of(p_.o, p_.o_strides, head_ * group_ + row % group_, row / group_);
    to[d] = from_float<T>(value);
  }

  const AttentionStep<T>& p_;
  const Parts& parts_;
  const int index_, batch_, head_, group_, rows_, keys_, lane_;
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
