// Matrix product C = epilogue(A·B) in register tiles of MR rows × NR columns.
//
//            NR columns (NV vectors)
//          ┌─────────────┐            B: panels of NR columns, K-major inside a panel, the last
//     A    │ b b b  k ↓  │               one padded with zeros (layout `1/NR 0 1%NR`)
//   ┌────┐ ├─────────────┤            A: in place, row-major; one element broadcast per NV FMAs
// MR│a → │ │ MR·NV       │            C: row-major; accumulators stay in registers for `depth`
//   └────┘ │ accumulators│               steps of k, the epilogue is applied before the last store
//          └─────────────┘
//
// Each k reads NV vectors of B and MR scalars of A for MR·NV FMAs. A panel stays in the L2 while
// all rows of a block pass over it: B moves once per row block, A once per panel. With few rows
// the product is bound by the bytes of B, which are read once, in order.
// Measured shares of the FMA ceiling and of the memory bandwidth are in docs/performance.md.
#pragma once

#include <algorithm>
#include <cstdint>

#include "epilogue.h"
#include "pack.h"
#include "vec.h"

namespace dfc::gemm {

#if DFC_VECTOR_BYTES == 64
inline constexpr int NR = 64, MR = 6;  // 24 accumulators, 4 of B, 1 of A in 32 registers
#elif DFC_VECTOR_BYTES == 32
inline constexpr int NR = 16, MR = 6;  // 12 accumulators, 2 of B, 1 of A in 16 registers
#else
inline constexpr int NR = 8, MR = 4;  // 8 accumulators, 2 of B, 1 of A in 16 registers
#endif

// Rows of a tile: wider elements take more registers per row.
template <class T>
inline constexpr int tile_rows = MR * int(sizeof(float)) / int(sizeof(T));

// Bytes ahead of its use at which a tile asks for B: hardware stops at the end of each page.
inline constexpr long PREFETCH_BYTES = 2048;

// C[R, V vectors] (+)= A[R, depth]·B[depth, V vectors]; `lda`, `ldb`, `ldc` are row strides. A tile
// of full width also asks for one line of `ahead` per k: what a later tile will read as B.
template <class T, class B, int R, int V>
DFC_OUTLINE void tile(long depth, const T* a, long lda, const B* b, long ldb, T* c, long ldc,
                            bool accumulate, const char* ahead) {
  constexpr long row_bytes = V * lanes<T> * long(sizeof(B));
  constexpr int lines = V == NR / lanes<T> ? int((row_bytes + 63) / 64) : 0;
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
        sum[u][r][v] = accumulate && u == 0 ? load(c + r * ldc + v * L) : vec<T>{};
  long k = 0;
  for (; k + U <= depth; k += U) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      const char* far = reinterpret_cast<const char*>(b + (k + u + PREFETCH_BYTES / row_bytes) * ldb);
#pragma GCC unroll 8
      for (int line = 0; line < lines; ++line) __builtin_prefetch(far + 64 * line, 0, 3);
      if (lines > 0) __builtin_prefetch(ahead + 64 * (k + u), 0, 2);
      vec<T> row[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) row[v] = load_as<T>(b + (k + u) * ldb + v * L);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const T x = a[r * lda + k + u];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[u][r][v] += x * row[v];
      }
    }
  }
  for (; U > 1 && k < depth; ++k) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        sum[0][r][v] += a[r * lda + k] * load_as<T>(b + k * ldb + v * L);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      vec<T> total = sum[0][r][v];
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) total += sum[u][r][v];
      store(c + r * ldc + v * L, total);
    }
}

// `tile` for a number of rows, at most R, that is known when it runs.
template <class T, class B, int V, int R>
DFC_INLINE void tile_of(int rows, long depth, const T* a, long lda, const B* b, long ldb, T* c,
                        long ldc, bool accumulate, const char* ahead) {
  if constexpr (R > 1) {
    if (rows < R)
      return tile_of<T, B, V, R - 1>(rows, depth, a, lda, b, ldb, c, ldc, accumulate, ahead);
  }
  tile<T, B, R, V>(depth, a, lda, b, ldb, c, ldc, accumulate, ahead);
}

// C[rows, columns] = epilogue(buffer); row0 and column0 are the place in the whole of C.
template <class T, class E>
DFC_INLINE void finish(const T* buffer, int rows, int columns, long row0, long column0, T* c,
                       long ldc, const E& epilogue) {
  constexpr int L = lanes<T>;
  for (int r = 0; r < rows; ++r) {
    const T* from = buffer + r * NR;
    T* to = c + r * ldc;
    int j = 0;
    for (; j + L <= columns; j += L)
      store(to + j, epilogue(load(from + j), row0 + r, column0 + j, L));
    if (j < columns)
      store_first(to + j, epilogue(load(from + j), row0 + r, column0 + j, columns - j),
                  columns - j);
  }
}

// A matrix in memory. Rows of A are read in place, or copied tile by tile when k is not contiguous.
template <class T>
struct Rows {
  const T* data;
  long row_stride, column_stride;
};

// One panel of B, `depth_limit` steps of k at a time. Three sources follow: `at` gives the steps
// from k on, in an order that `tile` can read, and `follows` the bytes behind them that are going
// to be read next.
template <class T, class B>
struct PackedPanel {
  using element = B;
  static constexpr long depth_limit = 3072;  // 3072·64 floats are 768 KB of L2
  const B* panel;
  bool last_rows;  // the next task reads the next panel
  DFC_INLINE const B* at(long k, long) { return panel + k * NR; }
  DFC_INLINE long follows(bool last_depth, long depth) const {
    return last_rows || !last_depth ? depth * NR * long(sizeof(B)) : 0;
  }
};

// int8 codes, converted once for many rows.
template <class T, class B>
struct ConvertedPanel {
  using element = T;
  static constexpr long depth_limit = 512;
  const B* panel;
  alignas(64) T buffer[depth_limit * NR];
  const T* at(long k, long depth) {
    constexpr int L = lanes<T>;
    for (long i = 0; i < depth * NR; i += L) {
      __builtin_prefetch(panel + k * NR + i + PREFETCH_BYTES);
      store(buffer + i, load_as<T>(panel + k * NR + i));
    }
    return buffer;
  }
  DFC_INLINE long follows(bool, long) const { return 0; }
};

// A matrix with any strides, copied into the panel's order.
template <class T, class B>
struct StridedPanel {
  using element = T;
  static constexpr long depth_limit = 512;
  const B* first;  // of the panel's columns
  long row_stride, column_stride;
  int columns;
  alignas(64) T buffer[depth_limit * NR];
  const T* at(long k, long depth) {
    pack(first + k * row_stride, row_stride, column_stride, depth, columns, buffer, NR, NR);
    return buffer;
  }
  DFC_INLINE long follows(bool, long) const { return 0; }
};

// C[row0:row1, one panel] = epilogue(A[row0:row1, :]·panel).
template <class T, class Panel, class E>
void panel_product(long row0, long row1, long panel, long N, long K, Rows<T> a, Panel& b, T* c,
                   long ldc, const E& epilogue) {
  using B = typename Panel::element;
  constexpr int R = tile_rows<T>, V = NR / lanes<T>;
  const long column0 = panel * NR;
  const int columns = int(std::min<long>(NR, N - column0));
  const long steps = std::max<long>(1, (K + Panel::depth_limit - 1) / Panel::depth_limit);
  const long depth = std::max<long>(1, (K + steps - 1) / steps);
  alignas(64) T result[R * NR];
  alignas(64) T copy[R * Panel::depth_limit];
  for (long k = 0; k == 0 || k < K; k += depth) {
    const long d = std::min(depth, K - k);
    const bool last = k + d >= K;
    const B* panel_rows = b.at(k, d);
    const char* here = reinterpret_cast<const char*>(panel_rows);
    const char* next = reinterpret_cast<const char*>(panel_rows + d * NR);
    const char* end = next + b.follows(last, d);
    for (long r = row0; r < row1; r += R) {
      const int rows = int(std::min<long>(R, row1 - r));
      const T* rows_of_a = a.data + r * a.row_stride + k * a.column_stride;
      long lda = a.row_stride;
      if (a.column_stride != 1) {
        pack(rows_of_a, a.row_stride, a.column_stride, rows, d, copy, d, d);
        rows_of_a = copy;
        lda = d;
      }
      // Each tile asks for its share of what follows; `here` is in cache and costs nothing.
      const char* ahead = next < end ? next : here;
      next += 64 * d;
      T* to = c + r * ldc + column0;
      if (columns == NR && !(last && E::active)) {
        tile_of<T, B, V, R>(rows, d, rows_of_a, lda, panel_rows, NR, to, ldc, k > 0, ahead);
        continue;
      }
      if (k > 0) pack(to, ldc, 1, rows, columns, result, NR, columns);
      tile_of<T, B, V, R>(rows, d, rows_of_a, lda, panel_rows, NR, result, NR, k > 0, ahead);
      if (last) {
        finish(result, rows, columns, r, column0, to, ldc, epilogue);
      } else {
        finish(result, rows, columns, r, column0, to, ldc, Epilogue<>{});
      }
    }
  }
}

// Rows that one task multiplies with one panel: tiles enough to amortize what a task costs, and
// tasks enough for many threads. A panel that is copied first wants more rows.
inline constexpr long BLOCK_ROWS = 16 * MR, STRIDED_BLOCK_ROWS = 64 * MR;

// Task (block, panel) of C[M, N] = epilogue(A[M, K]·B), B in packed panels of T or int8.
template <class T, class B, class E>
void packed_task(long block, long panel, long M, long N, long K, Rows<T> a, const B* b, T* c,
                 long ldc, const E& epilogue) {
  const long row0 = block * BLOCK_ROWS, row1 = std::min(M, row0 + BLOCK_ROWS);
  const B* first = b + panel * K * NR;
  if (std::is_same_v<T, B> || row1 - row0 <= 2 * MR) {
    PackedPanel<T, B> source{first, row1 == M};
    panel_product(row0, row1, panel, N, K, a, source, c, ldc, epilogue);
  } else {
    ConvertedPanel<T, B> source;
    source.panel = first;
    panel_product(row0, row1, panel, N, K, a, source, c, ldc, epilogue);
  }
}

// Task (block, panel) of C[M, N] = epilogue(A[M, K]·B[K, N]) with any strides.
template <class T, class B, class E>
void strided_task(long block, long panel, long M, long N, long K, Rows<T> a, Rows<B> b, T* c,
                  long ldc, const E& epilogue) {
  const long row0 = block * STRIDED_BLOCK_ROWS, row1 = std::min(M, row0 + STRIDED_BLOCK_ROWS);
  StridedPanel<T, B> source;
  source.first = b.data + panel * NR * b.column_stride;
  source.row_stride = b.row_stride;
  source.column_stride = b.column_stride;
  source.columns = int(std::min<long>(NR, N - panel * NR));
  panel_product(row0, row1, panel, N, K, a, source, c, ldc, epilogue);
}

}  // namespace dfc::gemm
