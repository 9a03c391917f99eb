// Arithmetic on one element with the semantics of the IR, the same for every target.
//
// Integer sums and products wrap; a division by the integer zero gives zero instead of a signal;
// remainders have the sign of the divisor; NaN passes through minimum and maximum. Everything is
// branch-free where it can be, so that compilers vectorize the loops around it.
//
// A target's math.h includes this after it has defined DFC_SCALAR, how its functions are declared,
// and for float and double: magnitude(x), with_sign(x, sign), remainder_toward_zero(a, b).
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

namespace dfc {

// The unsigned type in which T's arithmetic wraps; at least `unsigned`, or promotion makes it int.
template <class T>
using wrapping = std::conditional_t<sizeof(T) < 4, unsigned, std::make_unsigned_t<T>>;

template <class T>
DFC_SCALAR T add(T a, T b) {
  return T(wrapping<T>(a) + wrapping<T>(b));
}

template <class T>
DFC_SCALAR T sub(T a, T b) {
  return T(wrapping<T>(a) - wrapping<T>(b));
}

template <class T>
DFC_SCALAR T mul(T a, T b) {
  return T(wrapping<T>(a) * wrapping<T>(b));
}

template <class T>
DFC_SCALAR T neg(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return -x;
  } else {
    return T(wrapping<T>(0) - wrapping<T>(x));
  }
}

template <class T>
DFC_SCALAR T abs(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return magnitude(x);
  } else if constexpr (std::is_unsigned_v<T>) {
    return x;
  } else {
    return x < 0 ? neg(x) : x;
  }
}

// Rounded toward zero. The quotient of the least integer and -1 wraps to the least integer.
template <class T>
DFC_SCALAR T div(T a, T b) {
  if constexpr (std::is_signed_v<T>) {
    if (b == T(-1)) return neg(a);
  }
  return b == T(0) ? T(0) : T(a / b);
}

// The remainder with the sign of the divisor.
template <class T>
DFC_SCALAR T modulo(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    const T r = remainder_toward_zero(a, b);
    if (r == T(0)) return with_sign(T(0), b);
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
DFC_SCALAR T pow(T a, T b) {
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

// NaN if either is NaN.
template <class T>
DFC_SCALAR T maximum(T a, T b) {
  return (a > b) | (a != a) ? a : b;
}

template <class T>
DFC_SCALAR T minimum(T a, T b) {
  return (a < b) | (a != a) ? a : b;
}

// Where a maximum and a minimum begin.
template <class T>
inline constexpr T least = std::numeric_limits<T>::has_infinity
                               ? -std::numeric_limits<T>::infinity()
                               : std::numeric_limits<T>::lowest();
template <class T>
inline constexpr T greatest = std::numeric_limits<T>::has_infinity
                                  ? std::numeric_limits<T>::infinity()
                                  : std::numeric_limits<T>::max();

// -1, 0 or 1; NaN stays NaN.
template <class T>
DFC_SCALAR T sign(T x) {
  return x > T(0) ? T(1) : x < T(0) ? T(-1) : x;
}

template <class T>
DFC_SCALAR bool is_nan(T x) {
  return x != x;
}

template <class T>
DFC_SCALAR bool is_inf(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    return abs(x) == infinity;
  } else {
    return false;
  }
}

}  // namespace dfc
