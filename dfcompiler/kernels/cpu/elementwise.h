// Arithmetic on one element with the semantics of the IR, for tasklets of element-wise maps.
//
// Everything is branch-free where it can be, so that GCC vectorizes the loops around it. Integer
// sums and products wrap; a division by the integer zero gives zero instead of a signal.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "math.h"

namespace dfc {

// The unsigned type in which T's arithmetic wraps; at least `unsigned`, or promotion makes it int.
template <class T>
using wrapping = std::conditional_t<sizeof(T) < 4, unsigned, std::make_unsigned_t<T>>;

template <class T>
DFC_INLINE T add(T a, T b) {
  return T(wrapping<T>(a) + wrapping<T>(b));
}

template <class T>
DFC_INLINE T sub(T a, T b) {
  return T(wrapping<T>(a) - wrapping<T>(b));
}

template <class T>
DFC_INLINE T mul(T a, T b) {
  return T(wrapping<T>(a) * wrapping<T>(b));
}

template <class T>
DFC_INLINE T neg(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return -x;
  } else {
    return T(wrapping<T>(0) - wrapping<T>(x));
  }
}

template <class T>
DFC_INLINE T abs(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fabs(x);
  } else if constexpr (std::is_unsigned_v<T>) {
    return x;
  } else {
    return x < 0 ? neg(x) : x;
  }
}

// Rounded toward zero. The quotient of the least integer and -1 wraps to the least integer.
template <class T>
DFC_INLINE T div(T a, T b) {
  if constexpr (std::is_signed_v<T>) {
    if (b == T(-1)) return neg(a);
  }
  return b == T(0) ? T(0) : T(a / b);
}

// The remainder with the sign of the divisor.
template <class T>
DFC_INLINE T modulo(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    const T r = std::fmod(a, b);
    if (r == T(0)) return std::copysign(T(0), b);
    return (r < T(0)) != (b < T(0)) ? r + b : r;
  } else {
    if constexpr (std::is_signed_v<T>) {
      if (b == T(-1)) return T(0);
    }
    if (b == T(0)) return T(0);
    const T r = T(a % b);
    return (r != T(0)) & ((r < T(0)) != (b < T(0))) ? T(r + b) : r;
  }
}

// Integer powers wrap; a negative exponent rounds 1 / a^|b| toward zero.
template <class T>
  requires std::is_integral_v<T>
DFC_INLINE T pow(T a, T b) {
  if constexpr (std::is_signed_v<T>) {
    if (b < 0) return a == T(1) ? T(1) : a == T(-1) ? (b % 2 ? T(-1) : T(1)) : T(0);
  }
  T result = 1;
  for (auto n = wrapping<T>(b); n != 0; n >>= 1) {
    if (n & 1) result = mul(result, a);
    a = mul(a, a);
  }
  return result;
}

// A truth value as 0 or 1. GCC 12 vectorizes comparisons of integers but no logic on `bool`, so
// the IR's logic is written as `(flag(a) & flag(b)) > 0`, `flag(a) < 1`, `flag(c) > 0 ? x : y`.
DFC_INLINE int flag(bool x) {
  return __builtin_bit_cast(unsigned char, x);
}

template <class T>
DFC_INLINE bool is_nan(T x) {
  return x != x;
}

template <class T>
DFC_INLINE bool is_inf(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fabs(x) == std::numeric_limits<T>::infinity();
  } else {
    return false;
  }
}

}  // namespace dfc
