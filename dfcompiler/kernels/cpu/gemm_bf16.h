// Matrix product C = epilogue(A·B) of bfloat16 operands with sums in float.
//
//             NR columns
//           ┌─────┬─────┐           B: panels of NR columns; a row of a panel holds two steps of k
//     A     │  b  │  b  │ pairs of     for each column (layout `1/NR 0/2 1%NR 0%2`), so that one
//  ┌─────┐  │     │     │ k            32-bit lane is what one multiply-add takes
//  │  a  │  ├─────┼─────┤           A: rows of bfloat16, read in place
//  ├─────┤  │ sum │ sum │           C: float or bfloat16; sums of a block of ROWS × NR go through
//  │  a  │  ├─────┼─────┤              a buffer in L1 into the epilogue
//  └─────┘  │ sum │ sum │
//           └─────┴─────┘
//
// Three forms of the inner product, chosen by what the compiler may use:
//   AMX          2 × 2 tiles of 16 × 16 sums, 32 steps of k at a time. The epilogue of the block
//                before runs between the tile instructions, which leave the vector units idle.
//   AVX512_BF16  12 rows × 2 vectors, two steps of k in one `vdpbf16ps`
//   portable     the same tile with fewer rows; both halves of a pair widened to float, two FMAs
// A block of A (`block_rows` rows, about half of the L2) stays while all panels pass it; with few
// rows the product is bound by the bytes of B, which are read once, in order.
// Measured rates are in docs/performance.md.
#pragma once

#include <algorithm>
#include <cstring>

#include "bf16.h"
#include "epilogue.h"
#include "vec.h"
#ifdef __AMX_BF16__
#include "amx.h"
#endif

namespace dfc::gemm_bf16 {

inline constexpr int NR = 2 * lanes<float>;
#if defined(__AMX_BF16__)
inline constexpr int ROWS = 32, DEPTH = 32;
#elif defined(__AVX512BF16__)
inline constexpr int ROWS = 12, DEPTH = 2;
#elif DFC_VECTOR_BYTES == 64
inline constexpr int ROWS = 10, DEPTH = 2;  // 20 sums, 4 of B, 2 of A in 32 registers
#else
inline constexpr int ROWS = 4, DEPTH = 2;  // 8 sums, 4 of B, 2 of A in 16 registers
#endif

// A matrix in memory.
struct Rows {
  const bf16* data;
  long row_stride, column_stride;
};

// A block of sums on its way through the epilogue into C, a few rows at a time.
template <class Out, class E>
struct Finish {
  const float* sums;
  Out* c;
  long ldc, row0, column0;
  int rows, columns, done;
  const E* epilogue;

  DFC_INLINE void row() {
    constexpr int L = lanes<float>;
    const float* from = sums + done * NR;
    Out* to = c + done * ldc;
    const long r = row0 + done++;
    if (columns == NR) {
#pragma GCC unroll 2
      for (int j = 0; j < NR; j += L)
        store(to + j, (*epilogue)(load(from + j), r, column0 + j, L));
      return;
    }
    for (int j = 0; j < columns; j += L) {
      const int count = std::min(L, columns - j);
      store_first(to + j, (*epilogue)(load(from + j), r, column0 + j, count), count);
    }
  }
  DFC_INLINE void some(int count) {
    for (const int end = std::min(rows, done + count); done < end;) row();
  }
  DFC_INLINE void rest() { some(rows); }
};

namespace detail {

#ifdef __AMX_BF16__

// Sums of one or two tiles of rows; `between` runs after the instructions of each step.
template <bool TWO, class F>
DFC_INLINE void tiles(long depth, const bf16* a, long lda, const bf16* b, float* sums,
                      bool accumulate, int ahead, const F& between) {
  constexpr long row = NR * sizeof(float);
  const long a_row = lda * long(sizeof(bf16));
  if (accumulate) {
    amx::load<0>(sums, row);
    amx::load<1>(sums + 16, row);
    if (TWO) amx::load<2>(sums + 16 * NR, row);
    if (TWO) amx::load<3>(sums + 16 * NR + 16, row);
  } else {
    amx::zero<0>();
    amx::zero<1>();
    if (TWO) amx::zero<2>();
    if (TWO) amx::zero<3>();
  }
  const bf16* far = b + depth * NR;  // the next panel
  for (long k = 0; k < depth; k += DEPTH) {
    amx::load<6>(b, row);
    amx::load<7>(b + 32, row);
    amx::load<4>(a, a_row);
    amx::multiply_add<0, 4, 6>();
    amx::multiply_add<1, 4, 7>();
    if (TWO) amx::load<5>(a + 16 * lda, a_row);
    if (TWO) amx::multiply_add<2, 5, 6>();
    if (TWO) amx::multiply_add<3, 5, 7>();
    for (int line = 0; line < ahead; ++line, far += 32) __builtin_prefetch(far, 0, 2);
    a += DEPTH;
    b += DEPTH * NR;
    between();
  }
  amx::store<0>(sums, row);
  amx::store<1>(sums + 16, row);
  if (TWO) amx::store<2>(sums + 16 * NR, row);
  if (TWO) amx::store<3>(sums + 16 * NR + 16, row);
}

#else

DFC_INLINE vint pair_of(const bf16* p) {
  std::int32_t both;
  std::memcpy(&both, p, sizeof both);
  return splat<std::int32_t>(both);
}

DFC_INLINE vfloat multiply_add(vfloat sum, vint a, vint b) {
#ifdef __AVX512BF16__
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
#else
  const vint high = vint{} + std::int32_t(0xffff0000);
  sum += vfloat(a << 16) * vfloat(b << 16);
  return sum + vfloat(a & high) * vfloat(b & high);
#endif
}

// Sums of R rows.
template <int R>
DFC_OUTLINE void tile(long depth, const bf16* a, long lda, const bf16* b, float* sums,
                      bool accumulate) {
  constexpr int L = lanes<float>;
  vfloat sum[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sum[r][v] = accumulate ? load(sums + r * NR + v * L) : vfloat{};
  for (long k = 0; k < depth; k += 2, b += 2 * NR) {
    __builtin_prefetch(b + 1024);
    if (sizeof(vfloat) == 64) __builtin_prefetch(b + 1056);
    vint row[2];
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) row[v] = load(reinterpret_cast<const std::int32_t*>(b) + v * L);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const vint both = pair_of(a + r * lda + k);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) sum[r][v] = multiply_add(sum[r][v], both, row[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) store(sums + r * NR + v * L, sum[r][v]);
}

template <int R>
DFC_INLINE void tile_of(int rows, long depth, const bf16* a, long lda, const bf16* b, float* sums,
                        bool accumulate) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of<R - 1>(rows, depth, a, lda, b, sums, accumulate);
  }
  tile<R>(depth, a, lda, b, sums, accumulate);
}

#endif

// sums (+)= A[rows, depth]·B[depth, NR], depth a multiple of DEPTH; rows of `before` are finished
// meanwhile, and `ahead` lines of the next panel asked for at each step.
template <class Before>
DFC_INLINE void multiply(int rows, long depth, const bf16* a, long lda, const bf16* b, float* sums,
                         bool accumulate, int ahead, Before& before) {
#ifdef __AMX_BF16__
  const long steps = std::max<long>(1, depth / DEPTH);
  const int share = int((before.rows - before.done + steps - 1) / steps);
  const auto between = [&]() __attribute__((always_inline)) { before.some(share); };
  if (rows > 16) {
    tiles<true>(depth, a, lda, b, sums, accumulate, ahead, between);
  } else {
    tiles<false>(depth, a, lda, b, sums, accumulate, ahead, between);
  }
#else
  (void)ahead;
  before.rest();
  tile_of<ROWS>(rows, depth, a, lda, b, sums, accumulate);
#endif
}

// Copies part of A, k by k, padded with zeros to `padded` columns.
DFC_OUTLINE inline void copy_rows(Rows a, int rows, long depth, bf16* to, long padded) {
  for (int r = 0; r < rows; ++r) {
    const bf16* from = a.data + r * a.row_stride;
    for (long k = 0; k < depth; ++k) to[r * padded + k] = from[k * a.column_stride];
    for (long k = depth; k < padded; ++k) to[r * padded + k] = bf16{0};
  }
}

#ifdef __AMX_BF16__
// Sizes of the tiles for a block of `rows` rows.
inline void configure(int rows) {
  amx::Configuration sizes;
  const int first = std::min(rows, 16), second = std::max(rows - 16, 1);
  const int tile_rows[8] = {first, first, second, second, first, second, 16, 16};
  for (int tile = 0; tile < 8; ++tile) {
    sizes.row_bytes[tile] = 64;
    sizes.rows[tile] = std::uint8_t(tile_rows[tile]);
  }
  amx::configure(sizes);
}
#endif

}  // namespace detail

// Steps of k that are copied at a time where A cannot be read in place.
inline constexpr long COPY_DEPTH = 512;

// C[row0:row1, one panel] = epilogue(A[row0:row1, :]·panel).
template <class Out, class E>
void panel_product(long row0, long row1, long panel, long N, long K, Rows a, const bf16* b, Out* c,
                   long ldc, const E& epilogue) {
  const long column0 = panel * NR;
  const int columns = int(std::min<long>(NR, N - column0));
  const long whole = K / DEPTH * DEPTH;
  const long blocks = (row1 - row0 + ROWS - 1) / ROWS;
  const int ahead = int((NR + blocks - 1) / std::max(1L, blocks));
  alignas(64) float sums[2][ROWS * NR];
  alignas(64) bf16 copy[ROWS * COPY_DEPTH];
  alignas(64) bf16 last_steps[DEPTH * NR];
  if (whole < K) {  // the panel ends before its last tile does
    std::memset(static_cast<void*>(last_steps), 0, sizeof last_steps);
    std::memcpy(static_cast<void*>(last_steps), b + whole * NR, (K - whole + 1) / 2 * 2 * NR * sizeof(bf16));
  }
  Finish<Out, E> before{nullptr, nullptr, ldc, 0, column0, 0, columns, 0, &epilogue};
#ifdef __AMX_BF16__
  int configured = 0;
#endif
  int buffer = 0;
  for (long r = row0; r < row1; r += ROWS, buffer ^= 1) {
    const int rows = int(std::min<long>(ROWS, row1 - r));
    float* to = sums[buffer];
#ifdef __AMX_BF16__
    if (rows != configured) detail::configure(configured = rows);
#endif
    const Rows here{a.data + r * a.row_stride, a.row_stride, a.column_stride};
    long k = 0;
    if (a.column_stride == 1 && whole > 0) {
      detail::multiply(rows, whole, here.data, a.row_stride, b, to, false, ahead, before);
      k = whole;
    }
    while (k < K) {
      const long depth = std::min(COPY_DEPTH, (k < whole ? whole : K) - k);
      const long padded = (depth + DEPTH - 1) / DEPTH * DEPTH;
      const Rows part{here.data + k * a.column_stride, a.row_stride, a.column_stride};
      detail::copy_rows(part, rows, depth, copy, padded);
      const bf16* steps = k < whole ? b + k * NR : last_steps;
      detail::multiply(rows, padded, copy, padded, steps, to, k > 0, 0, before);
      k += depth;
    }
    if (K == 0) std::fill_n(to, ROWS * NR, 0.0f);
    before.rest();
    before = {to, c + r * ldc + column0, ldc, r, column0, rows, columns, 0, &epilogue};
  }
  before.rest();
#ifdef __AMX_BF16__
  amx::release();
#endif
}

// Task (block, panel) of C[M, N] = epilogue(A[M, K]·B), B in packed panels. There are as many blocks
// as `block_rows` rows each would make; their numbers of tiles differ by one at most.
template <class Out, class E>
void packed_task(long block, long panel, long block_rows, long M, long N, long K, Rows a,
                 const bf16* b, Out* c, long ldc, const E& epilogue) {
  const long blocks = (M + block_rows - 1) / block_rows;
  const long tiles = (M + ROWS - 1) / ROWS;
  const long row0 = tiles * block / blocks * ROWS;
  const long row1 = std::min(M, tiles * (block + 1) / blocks * ROWS);
  panel_product(row0, row1, panel, N, K, a, b + panel * ((K + 1) / 2 * 2) * NR, c, ldc, epilogue);
}

}  // namespace dfc::gemm_bf16
