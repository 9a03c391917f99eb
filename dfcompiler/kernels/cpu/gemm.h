// Matrix product C = epilogue(A·B), blocked for the caches around the register tile of gemm_tile.h.
//
//                    WIDTH columns: a slice                  slice of B, KC × WIDTH: in the L1 while
//                 ┌──────┐                                      all tiles of a row block pass over it
//          k step │  B   │ KC                                A block, rows × K: read once a slice,
//                 ├──────┤                                      from the L2 if it fits
//       K         │ next │ ← into the L2 meanwhile           sums: contiguous, rows × WIDTH, from the
//    ┌──────┬───  └──────┘                                      first k step to the last, which
// MC │ A    │ …   ┌──────┐ ┐                                    applies the epilogue and writes C
//    │tiles │     │ C    │ │ tiles of MR or MR - 1 rows
//    └──────┴───  └──────┘ ┘
//
// Bytes from beyond the L1 for a tile and a step: MR·KC of A, and MR·WIDTH of sums to and fro, for
// MR·WIDTH·KC multiply-adds; B moves once for each row block. Rows are shared out evenly, first
// among blocks, then among tiles, because a sliver costs as much as a whole tile.
//
// With few rows (STREAM_TILES tiles) time goes into fetching B: slices are shallow, and the tiles of
// one slice fetch the next one into the L1, line by line.
//
// Measured shares of the FMA ceiling, of the rate of a tile fed from the L1, and of the memory
// bandwidth are in docs/performance.md.
#pragma once

#include <algorithm>
#include <cstdint>

#include "epilogue.h"
#include "gemm_slice.h"
#include "gemm_tile.h"
#include "pack.h"
#include "vec.h"

namespace dfc::gemm {

// What a product takes unless its operator carries a tile: slices of 32 KB, 64 KB of sums.
inline constexpr int KC = 128, MC = 256;
// Tiles below one another up to which B is streamed, and the depth of a slice then.
inline constexpr int STREAM_TILES = 4, STREAM_KC = 32;

// The part of C that one task computes.
template <class T>
struct Block {
  long row0, rows, column0;
  int columns;
  T* c;  // the first element of the whole of C
  long ldc;
};

// C[rows, columns] = epilogue(sums), NR apart; row0 and column0 are the place in the whole of C.
template <class T, class E>
DFC_INLINE void finish(const T* sums, int rows, int columns, long row0, long column0, T* c,
                       long ldc, const E& epilogue) {
  constexpr int L = lanes<T>;
  for (int r = 0; r < rows; ++r) {
    const T* from = sums + r * NR;
    T* to = c + r * ldc;
    int j = 0;
    for (; j + L <= columns; j += L)
      store(to + j, epilogue(load(from + j), row0 + r, column0 + j, L));
    if (j < columns)
      store_first(to + j, epilogue(load(from + j), row0 + r, column0 + j, columns - j),
                  columns - j);
  }
}

// Steps of k: of nearly the same depth, at most `most` (a multiple of a line), whole lines of A.
template <class T>
DFC_INLINE long step_depth(long K, long most) {
  constexpr long line = LINE / long(sizeof(T));
  const long steps = std::max<long>(1, (K + most - 1) / most);
  return std::max(line, ((K + steps - 1) / steps + line - 1) / line * line);
}

// One tile of several, while a part of the next slice of B comes: tiles divide it in order.
template <bool stream, class T, class B>
DFC_INLINE void fetching_tile(long t, long tiles, int rows, long depth, const T* a, long lda,
                              const B* b, const B* next, Sums<T> sums) {
  constexpr int R = tile_rows<T>, V = NR / lanes<T>;
  constexpr int row_lines = std::max(1, NR * int(sizeof(B)) / int(LINE));
  const long share = (depth * row_lines + tiles - 1) / tiles;
  const char* ahead = reinterpret_cast<const char*>(next) + t * share * LINE;
  const auto run = [&](auto prefetch) __attribute__((always_inline)) {
    tile_of<R, V>(rows, depth, a, lda, b, NR, sums, prefetch);
  };
  if constexpr (!stream) {
    run(SlicePrefetch{ahead, share});
  } else if (tiles == 1) {
    run(StreamPrefetch<row_lines, 2 * STREAM_KC * row_lines * LINE>{ahead, depth});
  } else {
    constexpr int few = std::max(1, row_lines / 2);
    run(StreamPrefetch<few, 0>{ahead, (share + few - 1) / few});
  }
}

// A block of at most `most_rows` rows, in steps of at most `depth_limit` floats of k.
template <int depth_limit, int most_rows, bool stream, class T, class Slice, class E>
void block_product(const Block<T>& block, long K, Rows<T> a, Slice& b, const E& epilogue) {
  static_assert(depth_limit % 16 == 0, "a step of k is a whole number of cache lines");
  constexpr int R = tile_rows<T>;
  constexpr long most = depth_limit * long(sizeof(float)) / long(sizeof(T));
  alignas(64) T partial[(most_rows + R - 1) / R * R * WIDTH];
  alignas(64) T copy[R * most];
  const long tiles = (block.rows + R - 1) / R, depth = step_depth<T>(K, most);
  const long low = block.rows / std::max<long>(1, tiles), higher = block.rows - low * tiles;
  const int panels = (block.columns + NR - 1) / NR;
  for (long k = 0; k == 0 || k < K; k += depth) {
    const long d = std::min(depth, K - k);
    const bool last = k + d >= K;
    b.prepare(k, d);
    long row = block.row0;
    for (long t = 0; t < tiles; ++t) {
      const int rows = int(low + (t < higher));
      const T* left = a.data + row * a.row_stride + k * a.column_stride;
      long lda = a.row_stride;
      if (a.column_stride != 1) {
        pack(left, a.row_stride, a.column_stride, rows, d, copy, most, d);
        left = copy;
        lda = most;
      }
      for (int g = 0; g < panels; ++g) {
        const int columns = std::min(NR, block.columns - g * NR);
        T* kept = partial + (t * GROUP + g) * R * NR;
        T* to = block.c + row * block.ldc + block.column0 + g * NR;
        const bool direct = last && !E::active && columns == NR;
        Sums<T> sums{k > 0 ? kept : nullptr, NR, kept, NR};
        if (last) {
          if (direct) sums.to = to, sums.to_stride = block.ldc;
          dfc::detail::prefetch_rows<1>(to, block.ldc, rows, columns);
          epilogue.prefetch(row, rows, block.column0 + g * NR, columns);
        }
        fetching_tile<stream>(t, tiles, rows, d, left, lda, b.panel(g, k), b.next(g, k + d), sums);
        if (last && !direct)
          finish(kept, rows, columns, row, block.column0 + g * NR, to, block.ldc, epilogue);
      }
      row += rows;
    }
  }
}

// Rows `block` of `blocks` and columns `slice` of C[M, N].
template <class T>
DFC_INLINE Block<T> block_of(long block, long blocks, long slice, long M, long N, T* c, long ldc) {
  const long row0 = M * block / blocks, column0 = slice * WIDTH;
  return {row0, M * (block + 1) / blocks - row0, column0, int(std::min<long>(WIDTH, N - column0)),
          c, ldc};
}

// Task (block of `blocks`, slice) of C[M, N] = epilogue(A[M, K]·B), B in packed panels of T or int8
// codes; there are enough blocks for none to have more than `most_rows` rows.
template <int depth_limit = KC, int most_rows = MC, class T, class B, class E>
void packed_task(long block, long blocks, long slice, long M, long N, long K, Rows<T> a, const B* b,
                 T* c, long ldc, const E& epilogue) {
  const Block<T> part = block_of(block, blocks, slice, M, N, c, ldc);
  const long tiles = (part.rows + tile_rows<T> - 1) / tile_rows<T>;
  const B* first = b + slice * GROUP * K * NR;
  if (tiles <= (std::is_same_v<T, B> ? STREAM_TILES : 2)) {
    PackedSlice<B> source{first, K};
    block_product<STREAM_KC, STREAM_TILES * MR, true>(part, K, a, source, epilogue);
  } else if constexpr (std::is_same_v<T, B>) {
    PackedSlice<B> source{first, K};
    block_product<depth_limit, most_rows, false>(part, K, a, source, epilogue);
  } else {
    ConvertedSlice<T, B, depth_limit> source;
    source.first = first, source.K = K, source.panels = (part.columns + NR - 1) / NR;
    block_product<depth_limit, most_rows, false>(part, K, a, source, epilogue);
  }
}

// Task (block of `blocks`, slice) of C[M, N] = epilogue(A[M, K]·B[K, N]) with any strides.
template <int depth_limit = KC, int most_rows = MC, class T, class B, class E>
void strided_task(long block, long blocks, long slice, long M, long N, long K, Rows<T> a, Rows<B> b,
                  T* c, long ldc, const E& epilogue) {
  const Block<T> part = block_of(block, blocks, slice, M, N, c, ldc);
  StridedSlice<T, B, depth_limit> source;
  source.first = b.data + part.column0 * b.column_stride;
  source.row_stride = b.row_stride;
  source.column_stride = b.column_stride;
  source.columns = part.columns;
  block_product<depth_limit, most_rows, false>(part, K, a, source, epilogue);
}

}  // namespace dfc::gemm
