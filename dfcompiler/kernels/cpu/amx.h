// Matrix tiles of the processor (AMX): eight registers of up to 16 rows × 64 bytes a thread.
//
// The compiler's own intrinsics do not say that a tile is loaded from memory, so that a store
// before one may be moved behind it; these say so. A program asks Linux once for the right to use
// tiles (`permitted`); a thread configures their sizes before each use, because other libraries of
// the process configure them too.
#pragma once

#include <cstdint>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "vec.h"

namespace dfc::amx {

// Whether this process may use tiles; asks for it the first time.
inline bool permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool given = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return given;
#else
  return false;
#endif
}

struct alignas(64) Configuration {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

DFC_INLINE void configure(const Configuration& sizes) {
  asm volatile("ldtilecfg %0" ::"m"(sizes) : "memory");
}

// Gives the tiles back: a thread that holds none is cheaper to switch.
DFC_INLINE void release() { asm volatile("tilerelease" ::: "memory"); }

template <int T>
DFC_INLINE void zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T));
}

template <int T>
DFC_INLINE void load(const void* from, long row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(T) : "memory");
}

template <int T>
DFC_INLINE void store(void* to, long row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row_bytes), "i"(T) : "memory");
}

// Tile C of floats += tile A of bfloat16 · tile B of pairs of bfloat16 along the summed axis.
template <int C, int A, int B>
DFC_INLINE void multiply_add() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace dfc::amx
