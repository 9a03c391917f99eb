// Where a product's B comes from: slices of WIDTH columns, a few steps of k at a time, in the order
// that register tiles read: panels of NR columns, one row of a panel behind the other.
//
// `prepare` makes the steps [k, k + depth) ready, `panel` is where step k of a panel then lies, and
// `next` what is read after step k - 1 of it; B in memory order is asked for ahead of its use.
#pragma once

#include <algorithm>

#include "gemm_tile.h"
#include "pack.h"
#include "vec.h"

namespace dfc::gemm {

inline constexpr int WIDTH = NR == 48 ? 48 : 64;  // columns of a slice
inline constexpr int GROUP = WIDTH / NR;  // panels of a slice

// A matrix in memory. Rows of A are read in place, or copied tile by tile when k is not contiguous.
template <class T>
struct Rows {
  const T* data;
  long row_stride, column_stride;
};

// The layout `1/NR 0 1%NR`, read in place.
template <class B>
struct PackedSlice {
  const B* first;  // panel of the slice
  long K;
  DFC_INLINE void prepare(long, long) {}
  DFC_INLINE const B* panel(int g, long k) const { return first + (g * K + k) * NR; }
  // Behind the last step come the panels of the next task.
  DFC_INLINE const B* next(int g, long k) const {
    return k < K ? panel(g, k) : panel(g + GROUP, k - K);
  }
};

// int8 codes in that layout, converted once for many rows.
template <class T, class B, int KC>
struct ConvertedSlice {
  static constexpr long AHEAD = 2048;  // codes
  const B* first;
  long K;
  int panels;
  alignas(64) T buffer[GROUP][KC * NR];
  DFC_INLINE void prepare(long k, long depth) {
    constexpr int L = lanes<T>;
    for (int g = 0; g < panels; ++g) {
      const B* from = first + (g * K + k) * NR;
      for (long i = 0; i < depth * NR; i += L) {
        __builtin_prefetch(from + i + AHEAD);
        store(buffer[g] + i, load_as<T>(from + i));
      }
    }
  }
  DFC_INLINE const T* panel(int g, long) const { return buffer[g]; }
  DFC_INLINE const T* next(int g, long) const { return buffer[g]; }
};

// A matrix with any strides, copied.
template <class T, class B, int KC>
struct StridedSlice {
  const B* first;  // of the columns
  long row_stride, column_stride;
  int columns;
  alignas(64) T buffer[GROUP][KC * NR];
  DFC_INLINE void prepare(long k, long depth) {
    for (int g = 0; g * NR < columns; ++g)
      pack(first + k * row_stride + g * NR * column_stride, row_stride, column_stride, depth,
           std::min(NR, columns - g * NR), buffer[g], NR, NR);
  }
  DFC_INLINE const T* panel(int g, long) const { return buffer[g]; }
  DFC_INLINE const T* next(int g, long) const { return buffer[g]; }
};

}  // namespace dfc::gemm
