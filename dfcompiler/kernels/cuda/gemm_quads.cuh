// Sums of a warp group (wgmma.h) become elements of c, 16 bytes at a time.
//
//   32 columns of a row, as the four threads of a quad hold them in pairs       as they store them
//   ┌──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┐          ┌───────────┬───────────┬──
//   │t0│t1│t2│t3│t0│t1│t2│t3│t0│t1│t2│t3│t0│t1│t2│t3│   ──▶    │    t0     │    t1     │ …
//   └──┴──┴──┴──┴──┴──┴──┴──┴──┴──┴──┴──┴──┴──┴──┴──┘          └───────────┴───────────┴──
//
// Pairs alone would be stores of 16 bytes in each of 8 rows: half sectors, and four times as many
// instructions. Transposed, a store of a warp is 64 bytes in each of 8 rows, whole sectors. It
// costs a shuffle for each pair: 64 for 64 × 256 sums, half the cycles that a way through shared
// memory would take there. The residual is read as c is stored, and transposed the other way.
//
// Where rows of c are not multiples of 16 bytes, elements are stored alone (`chunks` is false).
// Loads are never behind a branch of their own thread: outside of c they read its last elements.
#pragma once

#include <cstdint>
#include <cstring>

#include "gemm_finish.cuh"

namespace dfc::cuda {

// Whether c, and the residual and bias if there are any, can be read and stored 16 bytes at a time.
template <class T>
bool has_chunks(const Gemm<T>& p) {
  const auto address = [](const T* first) { return reinterpret_cast<std::uintptr_t>(first); };
  const long steps = p.N | p.c_row | p.c_batch | p.residual_row | p.residual_batch;
  return steps % 8 == 0 && (address(p.c) | address(p.residual)) % 16 == 0 &&
         address(p.bias) % 4 == 0;
}

// r[i] of thread t of a quad becomes r[t] of thread i.
__device__ inline void transpose_quad(unsigned (&r)[4]) {
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool upper = (threadIdx.x & step) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const unsigned got = __shfl_xor_sync(0xffffffffu, upper ? r[i] : r[i + step], step);
      if (upper)
        r[i] = got;
      else
        r[i + step] = got;
    }
  }
}

// Two elements as 32 bits, and back.
__device__ inline unsigned pair_of(float x, float y, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
__device__ inline unsigned pair_of(float x, float y, __half) {
  const __half2 pair = __floats2half2_rn(x, y);
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
template <class T>
__device__ inline T element_of(unsigned pair, int i) {
  const auto bits = static_cast<unsigned short>(pair >> 16 * i);
  T element;
  memcpy(&element, &bits, sizeof element);
  return element;
}

// Elements `column` and `column` + 1 of a row of N, or those nearest to them inside of it.
template <class T>
__device__ inline unsigned load_pair(const T* row, int column, int N, bool chunks) {
  unsigned bits;
  if (chunks) {
    bits = *reinterpret_cast<const unsigned*>(row + (column < N - 2 ? column : N - 2));
  } else {
    const T two[2] = {row[column < N ? column : N - 1], row[column + 1 < N ? column + 1 : N - 1]};
    memcpy(&bits, two, sizeof bits);
  }
  return bits;
}

// The sums of a thread as a part of c: row `row` and the one 8 below, `columns` from `column` on,
// of which it holds columns 8j + 2t and 8j + 2t + 1. Rows and columns are less than 2^31.
struct QuadPlace {
  long batch;
  int row, column;
};

// The row of the residual that belongs to one of c; for rows outside of c, the last one.
template <class T>
__device__ inline const T* residual_row(const Gemm<T>& p, long batch, int row) {
  const long inside = row < p.M ? row : p.M - 1;
  return p.residual + batch * p.residual_batch + inside * p.residual_row;
}

// What is added to or multiplied with the sums of a thread, read ahead in chunks.
template <Residual residual, int columns, class T>
struct QuadResidual {
  uint4 chunk[columns / 32][2];

  __device__ void load(const Gemm<T>& p, const QuadPlace& at) {
    if constexpr (residual != Residual::none) {
      const int first = at.column + threadIdx.x % 4 * 8, N = static_cast<int>(p.N);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const T* row = residual_row(p, at.batch, at.row + 8 * half);
#pragma unroll
        for (int i = 0; i < columns / 32; ++i) {
          const int column = first + 32 * i < N ? first + 32 * i : N - 8;
          chunk[i][half] = *reinterpret_cast<const uint4*>(row + column);
        }
      }
    }
  }
};

// Stores four pairs of a thread in 32 columns of a row.
template <class T>
__device__ inline void store_pairs(T* row, int first, int N, bool chunks, unsigned (&pairs)[4],
                                   bool inside) {
  const int t = threadIdx.x % 4;
  if (chunks) {
    transpose_quad(pairs);
    const int chunk = first + 8 * t;
    if (inside && chunk < N)
      *reinterpret_cast<uint4*>(row + chunk) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int column = first + i / 2 * 8 + 2 * t + i % 2;
      if (inside && column < N) row[column] = element_of<T>(pairs[i / 2], i % 2);
    }
  }
}

// Stores the sums of a thread, d[4j + 2·half + i] of column 8j + 2t + i. All lanes call together.
template <Activation activation, Residual residual, int columns, class T>
__device__ inline void store_sums(const Gemm<T>& p, bool chunks, const QuadPlace& at,
                                  const float (&d)[columns / 2],
                                  const QuadResidual<residual, columns, T>& others) {
  const int t = threadIdx.x % 4, N = static_cast<int>(p.N);
#pragma unroll
  for (int i = 0; i < columns / 32; ++i) {
    const int first = at.column + 32 * i;
    unsigned bias[4] = {};
    if (p.bias != nullptr) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        bias[j] = load_pair(p.bias, first + 8 * j + 2 * t, N, chunks);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + 8 * half;
      unsigned pairs[4] = {};
      if constexpr (residual != Residual::none) {
        const uint4& chunk = others.chunk[i][half];
        pairs[0] = chunk.x, pairs[1] = chunk.y, pairs[2] = chunk.z, pairs[3] = chunk.w;
        if (chunks) {
          transpose_quad(pairs);
        } else {
          const T* line = residual_row(p, at.batch, row);
#pragma unroll
          for (int j = 0; j < 4; ++j) pairs[j] = load_pair(line, first + 8 * j + 2 * t, N, false);
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float two[2];
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          two[k] = finished<activation, residual>(d[16 * i + 4 * j + 2 * half + k], p.scale,
                                                  to_float(element_of<T>(bias[j], k)),
                                                  to_float(element_of<T>(pairs[j], k)));
        }
        pairs[j] = pair_of(two[0], two[1], T{});
      }
      store_pairs(p.c + at.batch * p.c_batch + row * p.c_row, first, N, chunks, pairs,
                  row < p.M);
    }
  }
}

// The same sums among the partial ones of a part of k.
template <int columns, class T>
__device__ inline void store_partial(const Gemm<T>& p, const Split& split, long part,
                                     const QuadPlace& at, const float (&d)[columns / 2]) {
  const int N = static_cast<int>(p.N);
  const bool pairs = N % 2 == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const long row = at.row + 8 * half;
    float* line = split.partial + ((part * p.batch + at.batch) * p.M + row) * p.N;
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
      const int column = at.column + 8 * j + threadIdx.x % 4 * 2;
      const float2 two{d[4 * j + 2 * half], d[4 * j + 2 * half + 1]};
      if (row >= p.M || column >= N) continue;
      if (pairs) {
        *reinterpret_cast<float2*>(line + column) = two;
      } else {
        line[column] = two.x;
        if (column + 1 < N) line[column + 1] = two.y;
      }
    }
  }
}

}  // namespace dfc::cuda
