// Register tiles of attention: C[R rows, V vectors] = A·B with any strides of A.
//
//            V vectors
//          ┌───────────┐       B: rows of `ldb` elements, V vectors of each are read;
//     A    │ b b  k ↓  │       A: one element broadcast for V multiply-adds, from anywhere: keys
//   ┌────┐ ├───────────┤          in place (rows apart, k adjacent), or weights whose rows are
//  R│a → │ │ R·V       │          adjacent lanes (rows adjacent, k a panel apart);
//   └────┘ │accumulators│      what happens to C is the caller's: `start` gives a tile's first
//          └───────────┘       values, `finish` takes its last ones, both in registers.
//
// 6 × 4, 12 × 2 and 16 × 1 vectors keep both multiply-add ports busy from L1 (AVX-512).
#pragma once

#include "vec.h"

namespace dfc::attention {

#if DFC_VECTOR_BYTES == 64
inline constexpr int TILE_VECTORS = 4, ACCUMULATORS = 24;  // of 32 registers
#elif DFC_VECTOR_BYTES == 32
inline constexpr int TILE_VECTORS = 2, ACCUMULATORS = 12;  // of 16 registers
#else
inline constexpr int TILE_VECTORS = 2, ACCUMULATORS = 8;  // of 16 registers
#endif

// Rows of a tile that is V vectors wide.
template <int V>
inline constexpr int tile_rows = V == 1 && ACCUMULATORS > 16 ? 16 : ACCUMULATORS / V;

// Rows of the next lower tile, for what is left: each size costs time to compile.
template <int V>
constexpr int fewer_rows(int rows) {
  if (rows == 12) return 8;
  if (rows == 16 || rows == 6) return 4;
  return rows == 8 || (rows == 4 && V == 1) ? 2 : 1;
}

// A by rows: those of a matrix, k by k.
template <class T>
struct ByRows {
  const T* data;
  long stride;
  DFC_INLINE ByRows at(long row) const { return {data + row * stride, stride}; }
  DFC_INLINE T operator()(long row, long k) const { return data[row * stride + k]; }
};

// A by lanes: row r is lane r of vectors that lie STRIDE elements apart.
template <class T, long STRIDE>
struct ByLanes {
  const T* data;
  DFC_INLINE ByLanes at(long row) const { return {data + row}; }
  DFC_INLINE T operator()(long row, long k) const { return data[k * STRIDE + row]; }
};

// Rows of memory that are needed later: a tile of full height asks for two
// cache lines of one every four steps.
struct Ahead {
  const char* data;
  long stride;
};

// What is needed later, handed out to tiles: up to four stacks of matrices, two lines of each row at
// a time.
class Later {
 public:
  template <class T>
  void add(const T* data, long row_stride, long rows, long width, long count = 1, long stride = 0) {
    const long pairs = (width * long(sizeof(T)) + 127) / 128;
    if (rows > 0)
      parts_[count_++] = {reinterpret_cast<const char*>(data), row_stride * long(sizeof(T)), rows,
                          pairs, count, stride * long(sizeof(T))};
  }

  Ahead take(long rows) {
    if (next_ == count_) return {reinterpret_cast<const char*>(this), 0};
    Part& part = parts_[next_];
    const Ahead ahead{part.data + pair_ * 128 + row_ * part.stride, part.stride};
    row_ += rows;
    if (row_ < part.rows) return ahead;
    row_ = 0;
    if (++pair_ < part.pairs) return ahead;
    pair_ = 0;
    part.data += part.matrix_stride;
    if (--part.matrices == 0) ++next_;
    return ahead;
  }

 private:
  struct Part {
    const char* data;
    long stride, rows, pairs, matrices, matrix_stride;
  };
  Part parts_[4];
  int count_ = 0, next_ = 0;
  long row_ = 0, pair_ = 0;
};

template <class T, int R, int V, class A>
DFC_INLINE void step(vec<T> (&sum)[R][V], const A& a, long k, const T* b) {
  vec<T> line[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) line[v] = load(b + v * lanes<T>);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const T x = a(r, k);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] += x * line[v];
  }
}

template <class T, int R, int V, class A, class Update>
DFC_OUTLINE void tile(long depth, A a, const T* b, long ldb, Update update, Ahead ahead) {
  vec<T> sum[R][V];
  update.template start<R, V>(sum);
  long k = 0;
  if constexpr (R == tile_rows<V>)
    for (; k + 4 <= depth; k += 4) {
      __builtin_prefetch(ahead.data, 0, 2);
      __builtin_prefetch(ahead.data + 64, 0, 2);
      ahead.data += ahead.stride;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) step<T, R, V>(sum, a, k + i, b + (k + i) * ldb);
    }
  for (; k < depth; ++k) step<T, R, V>(sum, a, k, b + k * ldb);
  update.template finish<R, V>(sum);
}

// Copies rows of a matrix with any strides; what is behind `width` becomes zero up to `padded`.
template <class T>
DFC_OUTLINE void copy_rows(const T* from, long row_stride, long column_stride, long rows, long width,
                           T* to, long padded) {
  constexpr int L = lanes<T>;
  for (long r = 0; r < rows; ++r, from += row_stride, to += padded) {
    long c = 0;
    if (column_stride == 1)
      for (; c + L <= width; c += L) store(to + c, load(from + c));
    for (; c < width; ++c) to[c] = from[c * column_stride];
    for (; c < padded; ++c) to[c] = T(0);
  }
}

// Rows [row, end) of C, in tiles of R rows, then of fewer: 8 as 4 + 4, not 6 + 1 + 1, because few
// accumulators wait for one another. `depth(r)` steps of k count for the rows up to r.
template <class T, int R, int V, class Depth, class A, class Update, class Later>
DFC_INLINE void row_tiles(long row, long end, const Depth& depth, const A& a, const T* b, long ldb,
                          const Update& update, long column, Later& later) {
  constexpr int F = fewer_rows<V>(R);
  constexpr bool halve = R > F && R < 2 * F;
  for (; row + R <= end && !(halve && end - row == 2 * F); row += R) {
    const long steps = depth(row + R - 1);
    const Ahead ahead = R == tile_rows<V> ? later.take(steps / 4) : Ahead{};
    tile<T, R, V>(steps, a.at(row), b, ldb, update.at(row, column), ahead);
  }
  if constexpr (R > 1)
    if (row < end) row_tiles<T, F, V>(row, end, depth, a, b, ldb, update, column, later);
}

// C[row:end, column: + vectors], in tiles of V vectors, then of fewer.
template <class T, int V = TILE_VECTORS, class Depth, class A, class Update, class Later>
void product(long row, long end, long vectors, const Depth& depth, const A& a, const T* b, long ldb,
             const Update& update, long column, Later& later) {
  constexpr int L = lanes<T>;
  for (; vectors >= V; vectors -= V, column += V * L)
    row_tiles<T, tile_rows<V>, V>(row, end, depth, a, b + column, ldb, update, column,
                               later);
  if constexpr (V > 1)
    if (vectors > 0) product<T, V / 2>(row, end, vectors, depth, a, b, ldb, update, column, later);
}

}  // namespace dfc::attention
