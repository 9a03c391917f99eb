// Launcher of attention: o = softmax(q·kᵀ·scale + mask)·v, scores in registers and shared memory.
//
// Defined in attention.cuh, which only the translation unit with the instances includes.
#pragma once

#include <cuda_runtime.h>

namespace dfc::cuda {

// The mask type of an attention without one.
struct NoMask {};

// Strides count elements, over (batch, head, row, element); query head h reads key head h / group
// with group = heads / kv_heads. Rows of o are contiguous.
//
// Attributes:
//   mask: over (batch, head, query, key), with strides 0 where it broadcasts; bool (true: visible)
//     or a number that is added, hidden where that is -inf. Not read for NoMask.
template <class T, class M>
struct Attention {
  long batch, heads, kv_heads, queries, keys, width, value_width;
  const T* q;
  long q_strides[4];
  const T* k;
  long k_strides[4];
  const T* v;
  long v_strides[4];
  T* o;
  long o_strides[3];
  const M* mask;
  long mask_strides[4];
  float scale;
};

// Enqueues the attention; returns what the launches returned. Causal: the last query sees all keys,
// each one before it one less; a row that sees no key gives zeros.
//
// WIDTH is what both widths are padded to in registers: 32, 64 or 128 for the tiled kernels, any
// other multiple of 32 for a warp a row.
template <class T, class M, int WIDTH, bool CAUSAL>
cudaError_t attention(cudaStream_t stream, Attention<T, M> p);

}  // namespace dfc::cuda
