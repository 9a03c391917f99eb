// What happens to sums: scale, bias, activation, residual, rounding; or a place among partial sums.
//
//   k split among blocks:   block 0 ─▶ partial[0] ┐
//                           block 1 ─▶ partial[1] ┼─▶ the last of them to end: c
//                           block s ─▶ partial[s] ┘
//
// Blocks of a tile count themselves; the one that finds all others done adds the partial sums, in
// the order of k, so that a result is the same in every run. No second launch is needed.
#pragma once

#include "cuda/math.h"
#include "gemm.h"
#include "last_block.cuh"
#include "predecessor.h"
#include "storage.h"

namespace dfc::cuda {

// How k is shared among blocks.
//
// Attributes:
//   parts: blocks for one tile of c; part i sums k from i · depth on.
//   depth: steps of k of a part.
//   partial: [parts, batch, M, N], or nullptr for one part.
//   done: for each tile of c, how many of its blocks have ended; zero between kernels.
struct Split {
  long parts, depth;
  float* partial = nullptr;
  unsigned* done = nullptr;
};

// Kernels of products.
template <class T>
using GemmKernel = void (*)(Awaited<Gemm<T>>, Split);

// Which tile of c and which part of k a block has. Tiles that run at the same time form squares of
// GROUP rows of tiles, so that they share operands in the L2.
struct TilePlace {
  long row, column, batch, part, tile;

  template <int BM, int BN, class T>
  __device__ static TilePlace of_block(const Gemm<T>& p, long parts) {
    constexpr long GROUP = 8;
    const long rows = (p.M + BM - 1) / BM, columns = (p.N + BN - 1) / BN;
    const long tile = blockIdx.x % (rows * columns), rest = blockIdx.x / (rows * columns);
    const long group = tile / (GROUP * columns), first = group * GROUP;
    const long height = rows - first < GROUP ? rows - first : GROUP;
    const long inside = tile - first * columns;
    return {(first + inside % height) * BM, inside / height * BN, rest / parts, rest % parts,
            rest / parts * rows * columns + tile};
  }
};

template <Activation activation>
__device__ inline float activate(float x) {
  if constexpr (activation == Activation::gelu) return dfc::gelu(x);
  if constexpr (activation == Activation::gelu_tanh) return dfc::gelu_tanh(x);
  if constexpr (activation == Activation::silu) return dfc::silu(x);
  if constexpr (activation == Activation::relu) return dfc::relu(x);
  if constexpr (activation == Activation::tanh) return dfc::tanh(x);
  if constexpr (activation == Activation::sigmoid) return dfc::sigmoid(x);
  return x;
}

// What an element of c becomes, before it is rounded; without a bias or residual these are zero.
template <Activation activation, Residual residual>
__device__ inline float finished(float sum, float scale, float bias, float other) {
  static_assert(residual != Residual::gate, "a gate has two sums");
  const float value = activate<activation>(sum * scale + bias);
  if constexpr (residual == Residual::add) return value + other;
  if constexpr (residual == Residual::mul) return value * other;
  return value;
}

// What element [row, column] of c becomes.
template <Activation activation, Residual residual, class T>
__device__ inline T finished(const Gemm<T>& p, long batch, long row, long column, float sum) {
  const float bias = p.bias != nullptr ? to_float(p.bias[column]) : 0.0f;
  float other = 0.0f;
  if constexpr (residual != Residual::none)
    other = to_float(p.residual[batch * p.residual_batch + row * p.residual_row + column]);
  return from_float<T>(finished<activation, residual>(sum, p.scale, bias, other));
}

// What a column of c becomes from the sums of its gate and of what passes it.
template <Activation activation, class T>
__device__ inline T gated(const Gemm<T>& p, float gate, float passing) {
  return from_float<T>(activate<activation>(gate * p.scale) * (passing * p.scale));
}

template <class T>
struct Pair;
template <>
struct Pair<float> {
  using type = float2;
};
template <>
struct Pair<__nv_bfloat16> {
  using type = __nv_bfloat162;
};
template <>
struct Pair<__half> {
  using type = __half2;
};

// Puts the sum of [row, column] where it belongs; outside of c, nowhere.
template <Activation activation, Residual residual, class T>
__device__ inline void put(const Gemm<T>& p, const Split& split, const TilePlace& at, long row,
                           long column, float sum) {
  if (row >= p.M || column >= p.N) return;
  if (split.partial != nullptr)
    split.partial[((at.part * p.batch + at.batch) * p.M + row) * p.N + column] = sum;
  else
    p.c[at.batch * p.c_batch + row * p.c_row + column] =
        finished<activation, residual>(p, at.batch, row, column, sum);
}

// Puts the sums of [row, column] and [row, column + 1].
template <Activation activation, Residual residual, class T>
__device__ inline void put_pair(const Gemm<T>& p, const Split& split, const TilePlace& at, long row,
                                long column, float first, float second) {
  if (row >= p.M || column >= p.N) return;
  const bool both = column + 1 < p.N;
  if (split.partial != nullptr) {
    float* to = split.partial + ((at.part * p.batch + at.batch) * p.M + row) * p.N + column;
    to[0] = first;
    if (both) to[1] = second;
    return;
  }
  T* to = p.c + at.batch * p.c_batch + row * p.c_row + column;
  const T x = finished<activation, residual>(p, at.batch, row, column, first);
  if (!both) {
    to[0] = x;
    return;
  }
  const T y = finished<activation, residual>(p, at.batch, row, column + 1, second);
  using P = typename Pair<T>::type;
  if (reinterpret_cast<unsigned long long>(to) % sizeof(P) == 0) {
    P pair;
    pair.x = x;
    pair.y = y;
    *reinterpret_cast<P*>(to) = pair;
  } else {
    to[0] = x;
    to[1] = y;
  }
}

// c from all partial sums of the tile BM × BN at a place, by `thread` of THREADS.
template <int BM, int BN, int THREADS, Activation activation, Residual residual, class T>
__device__ inline void add_parts(const Gemm<T>& p, const Split& split, const TilePlace& at,
                                 int thread) {
  const long elements = p.batch * p.M * p.N;
  for (int i = thread; i < BM * BN; i += THREADS) {
    const long row = at.row + i / BN, column = at.column + i % BN;
    if (row >= p.M || column >= p.N) continue;
    const float* from = split.partial + (at.batch * p.M + row) * p.N + column;
    float sum = 0.0f;
    for (long part = 0; part < split.parts; ++part) sum += __ldcg(from + part * elements);
    p.c[at.batch * p.c_batch + row * p.c_row + column] =
        finished<activation, residual>(p, at.batch, row, column, sum);
  }
}

// The end of a block that wrote partial sums of the tile BM × BN at a place, if k is split.
template <int BM, int BN, int THREADS, Activation activation, Residual residual, class T>
__device__ inline void finish_tile(const Gemm<T>& p, const Split& split, const TilePlace& at) {
  if (split.partial == nullptr || !is_last_block(split.done + at.tile, split.parts)) return;
  add_parts<BM, BN, THREADS, activation, residual>(p, split, at, threadIdx.x);
}

}  // namespace dfc::cuda
