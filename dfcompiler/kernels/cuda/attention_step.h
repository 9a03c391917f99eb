// Launcher of attention of few new tokens over a cache: o = softmax(q·kᵀ·scale)·v in one launch.
//
// Defined in attention_step.cuh, which only the translation unit with the instances includes.
#pragma once

#include <cuda_runtime.h>

namespace dfc::cuda {

// How queries and new keys are rotated before they are multiplied.
enum class Rotation { none, halves, interleaved };

// Strides count elements, over (batch, head, row); elements of a row are contiguous. Query head h
// reads key head h / group with group = heads / kv_heads.
//
// Attributes:
//   past: keys of the cache; `fresh` new ones come behind them.
//   cos, sin: [batch, fresh, WIDTH / 2] with strides of their own, the same for queries and new
//     keys, of which there are equally many then; not read without a rotation.
template <class T>
struct AttentionStep {
  long batch, heads, kv_heads, queries, past, fresh;
  const T* q;
  long q_strides[3];
  const T* k;
  long k_strides[3];
  const T* v;
  long v_strides[3];
  const T* new_k;
  long new_k_strides[3];
  const T* new_v;
  long new_v_strides[3];
  T* o;
  long o_strides[3];
  const T* cos;
  long cos_strides[2];
  const T* sin;
  long sin_strides[2];
  float scale;
};

// Enqueues the attention; returns what the launch returned. ROWS, a power of two up to 8, is at
// least group · queries; WIDTH that of a head. Causal: the last query sees all keys, each one before
// it one less.
template <class T, int WIDTH, int ROWS, Rotation rotation, bool CAUSAL>
cudaError_t attention_step(cudaStream_t stream, AttentionStep<T> p);

}  // namespace dfc::cuda
