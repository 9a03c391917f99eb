// In place of kernels/cuda/ptx.h: the same functions, with the fragments of its pictures.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace dfc::cuda {

using emulation::Place;

inline unsigned char* dynamic_shared() { return emulation::dynamic_shared(); }

template <class T>
float element(unsigned pair, int half) {
  const auto bits = static_cast<unsigned short>(pair >> 16 * half);
  return static_cast<float>(std::bit_cast<T>(bits));
}

struct MmaLane {
  float* c;
  const unsigned *a, *b;
};

// All 32 lanes at once: a and b are put together from the fragments, c is added to.
template <class T>
void complete_mma(void* const* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& own = *static_cast<const MmaLane*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i)
        a[g + i % 2 * 8][2 * t + half + i / 2 * 8] = element<T>(own.a[i], half);
      for (int i = 0; i < 2; ++i) b[2 * t + half + i * 8][g] = element<T>(own.b[i], half);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& own = *static_cast<const MmaLane*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) own.c[i] += a[row][k] * b[k][column];
    }
  }
}

template <class T>
void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], T,
                  Place place = Place::current()) {
  MmaLane own{c, a, b};
  emulation::collective("mma_m16n8k16", place, 0xffffffffu, &own, complete_mma<T>);
}

inline void complete_mma_tf32(void* const* lanes) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& own = *static_cast<const MmaLane*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    // The hardware reads no more than the bits of a tf32.
    auto value = [](unsigned bits) { return std::bit_cast<float>(bits & 0xffffe000u); };
    for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = value(own.a[i]);
    for (int i = 0; i < 2; ++i) b[t + i * 4][g] = value(own.b[i]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& own = *static_cast<const MmaLane*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 8; ++k) own.c[i] += a[row][k] * b[k][column];
    }
  }
}

inline void mma_m16n8k8_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                             Place place = Place::current()) {
  MmaLane own{c, a, b};
  emulation::collective("mma_m16n8k8_tf32", place, 0xffffffffu, &own, complete_mma_tf32);
}

// To nearest, ties away from zero.
inline unsigned to_tf32(float value) {
  const unsigned bits = std::bit_cast<unsigned>(value);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

struct MatrixLane {
  unsigned* r;
  const void* row;
};

template <int count, bool transposed>
void complete_ldmatrix(void* const* lanes) {
  for (int i = 0; i < count; ++i) {
    unsigned short matrix[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(matrix[row], static_cast<const MatrixLane*>(lanes[8 * i + row])->row, 16);
    for (int lane = 0; lane < 32; ++lane) {
      const int y = lane / 4, x = lane % 4 * 2;
      const unsigned low = transposed ? matrix[x][y] : matrix[y][x];
      const unsigned high = transposed ? matrix[x + 1][y] : matrix[y][x + 1];
      static_cast<const MatrixLane*>(lanes[lane])->r[i] = low | high << 16;
    }
  }
}

template <int count, bool transposed>
void load_matrices(unsigned* r, const void* row, Place place) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16)
    emulation::fail("ldmatrix of a row that is not aligned to 16 bytes", place);
  MatrixLane own{r, row};
  const char* name = transposed ? "ldmatrix_trans" : "ldmatrix";
  emulation::collective(name, place, 0xffffffffu, &own, complete_ldmatrix<count, transposed>);
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* row, Place place = Place::current()) {
  load_matrices<4, false>(r, row, place);
}
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row, Place place = Place::current()) {
  load_matrices<4, true>(r, row, place);
}
inline void ldmatrix_x2(unsigned (&r)[2], const void* row, Place place = Place::current()) {
  load_matrices<2, false>(r, row, place);
}
inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* row, Place place = Place::current()) {
  load_matrices<2, true>(r, row, place);
}

inline void cp_async_16(void* shared, const void* global, int bytes,
                        Place place = Place::current()) {
  const auto addresses = reinterpret_cast<std::uintptr_t>(shared) |
                         (bytes ? reinterpret_cast<std::uintptr_t>(global) : 0);
  if (addresses % 16) emulation::fail("cp.async of addresses not aligned to 16 bytes", place);
  if (bytes < 0 || bytes > 16) emulation::fail("cp.async of other than 0 to 16 bytes", place);
  emulation::copy_async(shared, global, bytes, 16);
}

inline void cp_async_commit() { emulation::commit_copies(); }

template <int pending>
void cp_async_wait() {
  emulation::wait_for_copies(pending);
}

inline uint4 load_once_16(const void* global, Place place = Place::current()) {
  if (reinterpret_cast<std::uintptr_t>(global) % 16)
    emulation::fail("a load of 16 bytes from an address not aligned to 16", place);
  return *static_cast<const uint4*>(global);
}

inline void prefetch_l2(const void* global) { emulation::touch(global); }

inline void wait_for_predecessor() { emulation::wait_for_predecessor(); }

inline void let_successor_begin() {}

inline float exp2_approximate(float value) { return std::exp2(value); }

}  // namespace dfc::cuda
