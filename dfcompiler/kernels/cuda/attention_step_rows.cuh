// Rows of queries and keys in attention of few new tokens (attention_step.cuh): which threads have
// what of them, where they lie, and how they are rotated while they are loaded.
//
//   a row: LANES neighbouring lanes, OWN elements each, which are 16 bytes
//   halves:        lane l has elements of one half, lane l ± LANES / 2 their partners
//   interleaved:   both elements of a pair are one lane's
//
// Bytes: a row once, the partner's half once more from the L1, and its angles.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "attention_step.h"
#include "gemm_vector_depth.cuh"

namespace dfc::cuda::step {

inline constexpr int THREADS = 128, WARPS = THREADS / 32;

// How the threads of a block share keys of WIDTH elements.
template <class T, int WIDTH_, int ROWS_>
struct Shape {
  static constexpr int WIDTH = WIDTH_, ROWS = ROWS_;
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

// One key head of one batch index, and the query heads that read it: row = query · group + member.
template <class T>
struct KeyHead {
  const AttentionStep<T>& p;
  int index, batch, head, group, rows;

  __device__ KeyHead(const AttentionStep<T>& p, int index)
      : p(p),
        index(index),
        batch(index / int(p.kv_heads)),
        head(index % int(p.kv_heads)),
        group(int(p.heads / p.kv_heads)),
        rows(group * int(p.queries)) {}

  __device__ int query(int row) const { return row / group; }
  __device__ const T* q(int row) const { return at(p.q, p.q_strides, member(row), query(row)); }
  __device__ T* o(int row) const { return at(p.o, p.o_strides, member(row), query(row)); }
  __device__ const T* k(int key) const { return at(p.k, p.k_strides, head, key); }
  __device__ const T* v(int key) const { return at(p.v, p.v_strides, head, key); }
  __device__ const T* new_k(int key) const { return at(p.new_k, p.new_k_strides, head, key); }
  __device__ const T* new_v(int key) const { return at(p.new_v, p.new_v_strides, head, key); }
  // Angles of a query, or of the new key with its number.
  __device__ const T* cos(int number) const {
    return p.cos + batch * p.cos_strides[0] + number * p.cos_strides[1];
  }
  __device__ const T* sin(int number) const {
    return p.sin + batch * p.sin_strides[0] + number * p.sin_strides[1];
  }

 private:
  __device__ int member(int row) const { return head * group + row % group; }
  template <class Pointer>
  __device__ Pointer at(Pointer data, const long (&strides)[3], int of_head, int row) const {
    return data + batch * strides[0] + of_head * strides[1] + row * strides[2];
  }
};

}  // namespace dfc::cuda::step
