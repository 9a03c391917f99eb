// Vector registers as GCC vector types, one width for each instruction set.
//
// A kernel written on `vfloat` compiles to AVX-512, AVX2 or SSE2 by the compiler's flags alone;
// operators, comparisons and `?:` work lane by lane. Loads and stores need no alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__AVX512F__)
#define DFC_VECTOR_BYTES 64
#elif defined(__AVX__)
#define DFC_VECTOR_BYTES 32
#else
#define DFC_VECTOR_BYTES 16
#endif

#define DFC_INLINE inline __attribute__((always_inline))
#define DFC_OUTLINE __attribute__((noinline))

namespace dfc {

template <class T>
struct vector_of {
  typedef T type __attribute__((vector_size(DFC_VECTOR_BYTES)));
  typedef T unaligned __attribute__((vector_size(DFC_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};

template <class T>
using vec = typename vector_of<T>::type;

using vfloat = vec<float>;
using vint = vec<std::int32_t>;
using vdouble = vec<double>;

// Elements of T in one vector register.
template <class T>
inline constexpr int lanes = DFC_VECTOR_BYTES / int(sizeof(T));

template <class T>
DFC_INLINE vec<T> load(const T* p) {
  return *reinterpret_cast<const typename vector_of<T>::unaligned*>(p);
}

template <class T>
DFC_INLINE void store(T* p, vec<T> x) {
  *reinterpret_cast<typename vector_of<T>::unaligned*>(p) = x;
}

template <class T>
DFC_INLINE vec<T> splat(T x) {
  return x - vec<T>{};  // not `vec<T>{} + x`, which would have to turn -0 into 0
}

// The first `count` elements; the other lanes are zero. Reads nothing behind them.
template <class T>
DFC_INLINE vec<T> load_first(const T* p, int count) {
  vec<T> x{};
  __builtin_memcpy(&x, p, std::size_t(count) * sizeof(T));
  return x;
}

// Writes the first `count` lanes only.
template <class T>
DFC_INLINE void store_first(T* p, vec<T> x, int count) {
  __builtin_memcpy(p, &x, std::size_t(count) * sizeof(T));
}

namespace detail {

// Eight-bit integers as floats. GCC converts them one by one, so it is told the instruction.
DFC_INLINE vfloat widen(const std::int8_t* p) {
#if defined(__GNUC__) && !defined(__clang__) && DFC_VECTOR_BYTES >= 32 && defined(__AVX2__)
  typedef char bytes __attribute__((vector_size(16)));
  bytes codes{};
  __builtin_memcpy(&codes, p, lanes<float>);
#if DFC_VECTOR_BYTES == 64
  const vint whole = __builtin_ia32_pmovsxbd512_mask(codes, vint{}, static_cast<unsigned short>(-1));
#else
  const vint whole = __builtin_ia32_pmovsxbd256(codes);
#endif
#else
  vint whole;
  for (int i = 0; i < lanes<float>; ++i) whole[i] = p[i];
#endif
  return __builtin_convertvector(whole, vfloat);
}

}  // namespace detail

// One vector of elements of another type as T: converts int8 codes in registers.
template <class T, class B>
DFC_INLINE vec<T> load_as(const B* p) {
  if constexpr (std::is_same_v<T, B>) {
    return load(p);
  } else if constexpr (std::is_same_v<T, float> && std::is_same_v<B, std::int8_t>) {
    return detail::widen(p);
  } else {
    vec<T> x;
    for (int i = 0; i < lanes<T>; ++i) x[i] = T(p[i]);
    return x;
  }
}

// Integer lanes as wide as those of T.
template <class T>
using vec_index = vec<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>;

// Lane i is lane[i] of a followed by b.
template <class T>
DFC_INLINE vec<T> shuffle(vec<T> a, vec<T> b, vec_index<T> lane) {
#ifdef __clang__
  vec<T> x;
  for (int i = 0; i < lanes<T>; ++i) x[i] = lane[i] < lanes<T> ? a[lane[i]] : b[lane[i] - lanes<T>];
  return x;
#else
  return __builtin_shuffle(a, b, lane);
#endif
}

namespace detail {

template <int S, class T, class F>
DFC_INLINE vec<T> reduce(vec<T> x, F combine) {
  vec_index<T> partner;
#pragma GCC unroll 16
  for (int i = 0; i < lanes<T>; ++i) partner[i] = i ^ S;
  x = combine(x, shuffle<T>(x, x, partner));
  if constexpr (S > 1) {
    return reduce<S / 2, T>(x, combine);
  } else {
    return x;
  }
}

}  // namespace detail

template <class T>
DFC_INLINE T reduce_add(vec<T> x) {
  return detail::reduce<lanes<T> / 2, T>(x, [](vec<T> a, vec<T> b) { return a + b; })[0];
}

template <class T>
DFC_INLINE T reduce_max(vec<T> x) {
  return detail::reduce<lanes<T> / 2, T>(x, [](vec<T> a, vec<T> b) { return a > b ? a : b; })[0];
}

}  // namespace dfc
