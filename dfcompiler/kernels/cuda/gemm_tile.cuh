// Tiles of operands in shared memory: their layout, and the copies that fill them.
//
//   along depth (k is contiguous in memory)        along width (m or n is contiguous)
//
//        k ──▶  DEPTH elements                          n ──▶  WIDTH elements
//     ┌──┬──┬──┬──┐                                  ┌──┬──┬──┬──┬──┬──┬──┬──┐
//   n │c0│c1│c2│c3│   c: 16 bytes                  k │c0│c1│c2│ …            │
//   │ ├──┼──┼──┼──┤                                │ ├──┼──┼──┼──┼──┼──┼──┼──┤
//   ▼ │  │  │  │  │                                ▼ │  │  │  │              │
//
// The 16-byte chunks of a row are permuted by the row (`swizzled`), so that 8 rows of one column,
// or 8 chunks of one row, lie in 8 different sixteenths of a 128-byte line: neither ldmatrix nor a
// copy meets a bank conflict, and no padding is needed.
#pragma once

#include "ptx.h"

namespace dfc::cuda {

// How the elements of an operand lie: `depth` and `width` say along which axis 16 aligned bytes can
// be copied at once; `elements` is any strides and any alignment, one element at a time.
enum class Along { depth, width, elements };

// Where chunk `chunk` of row `row` lies in a tile with CHUNKS 16-byte chunks a row, in chunks.
template <int CHUNKS>
__device__ inline int swizzled(int row, int chunk) {
  static_assert(CHUNKS % 4 == 0);
  const int turn = CHUNKS % 8 == 0 ? row & 7 : (row >> 1) & 3;
  return row * CHUNKS + (chunk ^ turn);
}

// Part of a matrix: rows × columns elements from `first` on. What lies outside is zero.
template <class T>
struct Window {
  const T* first;
  long row_stride, column_stride;
  long rows, columns;
};

// Copies a window of which columns are contiguous and rows aligned into a tile of ROWS × COLUMNS.
template <int ROWS, int COLUMNS, int THREADS, class T>
__device__ inline void copy_chunks(T* tile, const Window<T>& from) {
  constexpr int PER_CHUNK = 16 / sizeof(T), CHUNKS = COLUMNS / PER_CHUNK, ALL = ROWS * CHUNKS;
#pragma unroll
  for (int i = 0; i < (ALL + THREADS - 1) / THREADS; ++i) {
    const int place = static_cast<int>(threadIdx.x) + i * THREADS;
    if (ALL % THREADS != 0 && place >= ALL) break;
    const int row = place / CHUNKS, chunk = place % CHUNKS;
    const long left = row < from.rows ? from.columns - chunk * PER_CHUNK : 0;
    const int bytes = left <= 0 ? 0 : left >= PER_CHUNK ? 16 : static_cast<int>(left * sizeof(T));
    const long offset = bytes == 0 ? 0 : row * from.row_stride + chunk * PER_CHUNK;
    cp_async_16(tile + swizzled<CHUNKS>(row, chunk) * PER_CHUNK, from.first + offset, bytes);
  }
}

// The same for any strides; neighbouring threads walk along the shorter one.
template <int ROWS, int COLUMNS, int THREADS, class T>
__device__ inline void copy_elements(T* tile, const Window<T>& from) {
  constexpr int PER_CHUNK = 16 / sizeof(T), CHUNKS = COLUMNS / PER_CHUNK;
  const bool along_rows = from.row_stride < from.column_stride;
  for (int place = threadIdx.x; place < ROWS * COLUMNS; place += THREADS) {
    const int row = along_rows ? place % ROWS : place / COLUMNS;
    const int column = along_rows ? place / ROWS : place % COLUMNS;
    T value{};
    if (row < from.rows && column < from.columns)
      value = from.first[row * from.row_stride + column * from.column_stride];
    tile[swizzled<CHUNKS>(row, column / PER_CHUNK) * PER_CHUNK + column % PER_CHUNK] = value;
  }
}

// The tile of one operand for one step of k: WIDTH rows of A or columns of B, DEPTH elements of k.
template <class T, Along along, int WIDTH, int DEPTH, int THREADS>
struct OperandTile {
  static constexpr bool depth_first = along != Along::width;
  static constexpr int ROWS = depth_first ? WIDTH : DEPTH, COLUMNS = depth_first ? DEPTH : WIDTH;
  static constexpr int ELEMENTS = WIDTH * DEPTH;
  static constexpr int PER_CHUNK = 16 / sizeof(T), CHUNKS = COLUMNS / PER_CHUNK;

  // The chunk with element `column` of `row`; columns count along the contiguous axis.
  __device__ static const T* chunk(const T* tile, int row, int column) {
    return tile + swizzled<CHUNKS>(row, column / PER_CHUNK) * PER_CHUNK;
  }

  // Starts filling a tile; `along_width` and `along_depth` are strides, `width` and `depth` what is
  // left of the operand from `first` on.
  __device__ static void fill(T* tile, const T* first, long along_width, long along_depth,
                              long width, long depth) {
    if constexpr (along == Along::elements)
      copy_elements<ROWS, COLUMNS, THREADS>(
          tile, Window<T>{first, along_width, along_depth, width, depth});
    else if constexpr (along == Along::depth)
      copy_chunks<ROWS, COLUMNS, THREADS>(tile, Window<T>{first, along_width, 1, width, depth});
    else
      copy_chunks<ROWS, COLUMNS, THREADS>(tile, Window<T>{first, along_depth, 1, depth, width});
  }
};

}  // namespace dfc::cuda
