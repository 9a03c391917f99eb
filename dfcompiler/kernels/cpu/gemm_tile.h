// The register tile of matrix products: C[R rows, V vectors] = from + A[R, depth]·B[depth, V].
//
//            NR columns (V vectors)
//          ┌─────────────┐            B: rows of NR columns, one behind the other (`ldb`)
//     A    │ b b b  k ↓  │
//   ┌────┐ ├─────────────┤            A: row-major with any row stride; one element is broadcast
//  R│a → │ │ R·V         │               for V multiply-adds
//   └────┘ │ accumulators│            C: from `from` (or zero) to `to`; in registers meanwhile
//          └─────────────┘
//
// Each k loads V vectors of B and R scalars of A for R·V multiply-adds: 10 loads for 24 with 6 × 64
// on AVX-512, 8 for 12 with 6 × 16 on AVX2; two loads go beside two multiply-adds in every cycle.
#pragma once

#include <cstdint>

#include "vec.h"

namespace dfc::gemm {

#if defined(DFC_GEMM_MR)  // benchmarks/tiles.py measures other register tiles
inline constexpr int NR = DFC_GEMM_NR, MR = DFC_GEMM_MR;
#elif DFC_VECTOR_BYTES == 64
inline constexpr int NR = 64, MR = 6;  // 24 accumulators, 4 of B, 1 of A in 32 registers
#elif DFC_VECTOR_BYTES == 32
inline constexpr int NR = 16, MR = 6;  // 12 accumulators, 2 of B, 1 of A in 16 registers
#else
inline constexpr int NR = 8, MR = 4;  // 8 accumulators, 2 of B, 1 of A in 16 registers
#endif

// Rows of a tile: wider elements take more registers per row.
template <class T>
inline constexpr int tile_rows = MR * int(sizeof(float)) / int(sizeof(T));

inline constexpr long LINE = 64;  // bytes

// What a tile asks the caches for at each k while it computes; three ways.
struct NoPrefetch {
  DFC_INLINE void step(long) const {}
};

// A share of the next slice of B, at most a line for each k, into the L2.
struct SlicePrefetch {
  const char* b;
  long lines;

  DFC_INLINE void step(long k) const {
    if (k < lines) __builtin_prefetch(b + LINE * k, 0, 2);
  }
};

// A share of the next slice of B, some lines for each k, into the L1; and, `far` bytes behind it
// unless that is 0, a later one into the L2. For what comes from memory.
template <int lines, int far>
struct StreamPrefetch {
  const char* b;
  long steps;

  DFC_INLINE void step(long k) const {
    if (k >= steps) return;
#pragma GCC unroll 4
    for (int i = 0; i < lines; ++i) {
      __builtin_prefetch(b + LINE * (lines * k + i), 0, 3);
      if (far != 0) __builtin_prefetch(b + far + LINE * (lines * k + i), 0, 2);
    }
  }
};

// What the sums of a tile are added to, and where they go; `from` null means zero. Each tile sums
// from zero: the sums of K / KC steps, added up, have a smaller error than one sum over K.
template <class T>
struct Sums {
  const T* from;
  long from_stride;
  T* to;
  long to_stride;
};

template <int R, int V, class T, class B, class P>
DFC_OUTLINE void tile(long depth, const T* a, long lda, const B* b, long ldb, Sums<T> c,
                      P prefetch) {
  // Few accumulators would wait for each other: take several k at a time instead.
  constexpr int U = R * V >= 8 ? 1 : R * V >= 4 ? 2 : 4;
  constexpr int L = lanes<T>;
  vec<T> sum[U][R][V];
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        sum[u][r][v] = vec<T>{};
  long k = 0;
  for (; k + U <= depth; k += U) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      prefetch.step(k + u);
      vec<T> row[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) row[v] = load_as<T>(b + u * ldb + v * L);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const T x = a[r * lda + u];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[u][r][v] += x * row[v];
      }
    }
    a += U;
    b += U * ldb;
  }
  for (; U > 1 && k < depth; ++k, ++a, b += ldb) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[0][r][v] += a[r * lda] * load_as<T>(b + v * L);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      vec<T> total = sum[0][r][v];
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) total += sum[u][r][v];
      if (c.from) total += load(c.from + r * c.from_stride + v * L);
      store(c.to + r * c.to_stride + v * L, total);
    }
}

// `tile` for a number of rows, at most R, that is known when it runs.
template <int R, int V, class T, class B, class P>
DFC_INLINE void tile_of(int rows, long depth, const T* a, long lda, const B* b, long ldb, Sums<T> c,
                        P prefetch) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of<R - 1, V>(rows, depth, a, lda, b, ldb, c, prefetch);
  }
  tile<R, V>(depth, a, lda, b, ldb, c, prefetch);
}

}  // namespace dfc::gemm
