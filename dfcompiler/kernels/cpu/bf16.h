// bfloat16: a float without the low half of its bits. Kernels store it and compute in float.
//
// Conversion rounds to nearest, ties to even. The processor's own instructions, where the compiler
// may use them (AVX512_BF16), take denormal numbers for zero; so do its products of bfloat16.
#pragma once

#include <cstdint>
#include <cstring>

#include "vec.h"

namespace dfc {

struct bf16 {
  std::uint16_t bits;
};

namespace detail {

typedef std::uint16_t bf16_bits __attribute__((vector_size(DFC_VECTOR_BYTES / 2)));
typedef std::uint16_t bf16_bits_unaligned
    __attribute__((vector_size(DFC_VECTOR_BYTES / 2), aligned(2), may_alias));

DFC_INLINE vfloat widen(bf16_bits x) {
#if defined(__GNUC__) && !defined(__clang__) && DFC_VECTOR_BYTES == 64
  typedef short halves __attribute__((vector_size(32)));
  const vint whole = __builtin_ia32_pmovzxwd512_mask(halves(x), vint{}, static_cast<unsigned short>(-1));
#elif defined(__GNUC__) && !defined(__clang__) && defined(__AVX2__)
  typedef short halves __attribute__((vector_size(16)));
  const vint whole = vint(__builtin_ia32_pmovzxwd256(halves(x)));
#else
  const vint whole = __builtin_convertvector(x, vint);
#endif
  return vfloat(whole << 16);
}

DFC_INLINE bf16_bits narrow(vfloat x) {
#ifdef __AVX512BF16__
  bf16_bits rounded;
  asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(x));
  return rounded;
#else
  typedef std::uint32_t words __attribute__((vector_size(DFC_VECTOR_BYTES)));
  const words bits = words(x);
  const words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const words quiet = bits >> 16 | 0x40;  // adding could carry a NaN into infinity
  return __builtin_convertvector(x == x ? rounded : quiet, bf16_bits);
#endif
}

}  // namespace detail

DFC_INLINE vfloat load(const bf16* p) {
  return detail::widen(*reinterpret_cast<const detail::bf16_bits_unaligned*>(p));
}

DFC_INLINE void store(bf16* p, vfloat x) {
  *reinterpret_cast<detail::bf16_bits_unaligned*>(p) = detail::narrow(x);
}

// The first `count` elements; the other lanes are zero. Reads nothing behind them.
DFC_INLINE vfloat load_first(const bf16* p, int count) {
  detail::bf16_bits x{};
  std::memcpy(&x, p, std::size_t(count) * sizeof(bf16));
  return detail::widen(x);
}

// Writes the first `count` lanes only.
DFC_INLINE void store_first(bf16* p, vfloat x, int count) {
  const detail::bf16_bits rounded = detail::narrow(x);
  std::memcpy(p, &rounded, std::size_t(count) * sizeof(bf16));
}

// to[i] = from[i] rounded, for one block of `block` elements of `count`.
DFC_INLINE void round_block(bf16* to, const float* from, long index, long block, long count) {
  constexpr int L = lanes<float>;
  long i = index * block;
  const long end = i + block < count ? i + block : count;
  for (; i + L <= end; i += L) store(to + i, load(from + i));
  if (i < end) store_first(to + i, load_first(from + i, int(end - i)), int(end - i));
}

}  // namespace dfc
