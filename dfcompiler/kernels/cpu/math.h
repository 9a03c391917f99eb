// Elementary functions without branches, for float, double and vectors of float.
//
// One template per function serves scalars (GCC vectorizes the loops around them) and `vfloat`.
// Polynomials are minimax fits; the error against float64, measured over the whole range, stands
// beside each function in units in the last place (ulp) of the float result. NaN, infinities,
// signed zeros and denormals behave as in IEEE libraries. Needs no -ffast-math, and must not be
// compiled with it: the rounding trick in `exp` relies on the order of operations.
//
// Include as "cpu/math.h" with the folder above on the include path: this folder itself on the
// path would hide the C library's <math.h>.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "gelu_table.h"
#include "vec.h"

namespace dfc {
namespace math {

template <class T>
using bits_of = std::conditional_t<std::is_same_v<T, float>, std::int32_t, vint>;

template <class T>
DFC_INLINE bits_of<T> bits(T x) {
  return __builtin_bit_cast(bits_of<T>, x);
}

template <class T>
DFC_INLINE T real(bits_of<T> x) {
  return __builtin_bit_cast(T, x);
}

template <class T>
DFC_INLINE T all(float x) {
  return T{} + x;
}

template <class T>
DFC_INLINE bits_of<T> all_bits(std::int32_t x) {
  return bits_of<T>{} + x;
}

template <class T>
DFC_INLINE T magnitude(T x) {
  return real<T>(bits(x) & 0x7fffffff);
}

template <class T>
DFC_INLINE T with_sign_of(T x, T sign) {
  return real<T>(bits(x) | (bits(sign) & std::int32_t(0x80000000)));
}

template <class T>
DFC_INLINE T power_of_two(bits_of<T> n) {
  return real<T>((n + 127) << 23);
}

// Adding 1.5·2^23 rounds to an integer and leaves it in the low bits.
inline constexpr float ROUND = 12582912.0f;

// x = n·ln 2 + r with |r| <= ln 2 / 2; gives exp(r), and n + ROUND.
template <class T>
DFC_INLINE T exp_reduced(T x, T& shifted) {
  shifted = x * 1.44269504f + ROUND;
  const T whole = shifted - ROUND;
  const T r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
  T p = r * 1.381446685e-03f + 8.368780418e-03f;
  p = p * r + 4.166839422e-02f;
  p = p * r + 1.666652011e-01f;
  p = p * r + 4.999999341e-01f;
  return (p * r) * r + r + 1.0f;
}

// p·2^n for shifted = n + ROUND, where 2^n is a normal number; NaN stays NaN.
template <class T>
DFC_INLINE T scaled(T p, T shifted) {
  return p * real<T>((bits(shifted) << 23) + 0x3f800000);
}

// exp: 1.0 ulp, denormal results included.
template <class T>
DFC_INLINE T exp(T x) {
  x = x < -104.0f ? all<T>(-104.0f) : x;
  x = x > 89.0f ? all<T>(89.0f) : x;
  T shifted;
  const T p = exp_reduced(x, shifted);
  const bits_of<T> n = bits(shifted) - 0x4b400000;
  const bits_of<T> half = n >> 1;  // 2^n itself may be no normal number
  return p * power_of_two<T>(half) * power_of_two<T>(n - half);
}

// exp of values <= 0, where results below the least normal number may become zero: 1.0 ulp.
template <class T>
DFC_INLINE T exp_nonpositive(T x) {
  T shifted;
  const T p = exp_reduced(x < -87.33654f ? all<T>(-87.33654f) : x, shifted);
  return x < -87.33654f ? all<T>(0.0f) : scaled(p, shifted);
}

// 2^y for y <= 0, zero below 2^-125: relative error 1.2e-7.
template <class T>
DFC_INLINE T exp2_nonpositive(T y) {
  const T x = y < -125.0f ? all<T>(-125.0f) : y;
  const T shifted = x + ROUND;
  const T f = x - (shifted - ROUND);
  T p = f * 1.535334110e-04f + 1.339890022e-03f;
  p = p * f + 9.618437606e-03f;
  p = p * f + 5.550332410e-02f;
  p = p * f + 2.402264791e-01f;
  p = p * f + 6.931472029e-01f;
  p = p * f + 1.0f;
  return y < -125.0f ? all<T>(0.0f) : scaled(p, shifted);
}

// log: 0.8 ulp.
template <class T>
DFC_INLINE T log(T x) {
  const auto small = x < std::numeric_limits<float>::min();
  const T scaled = small ? x * 8388608.0f : x;
  const bits_of<T> b = bits(scaled);
  const bits_of<T> e = (b - 0x3f3504f3) >> 23;  // the mantissa ends up in [sqrt(1/2), sqrt(2))
  const T m = real<T>(b - (e << 23));
  T exponent;
  if constexpr (std::is_same_v<T, float>) {
    exponent = float(e);
  } else {
    exponent = __builtin_convertvector(e, T);
  }
  exponent = small ? exponent - 23.0f : exponent;
  const T f = m - 1.0f;
  T p = f * 6.746640335e-02f + -1.167565178e-01f;
  p = p * f + 1.188816232e-01f;
  p = p * f + -1.240558893e-01f;
  p = p * f + 1.421955235e-01f;
  p = p * f + -1.666799585e-01f;
  p = p * f + 2.000211866e-01f;
  p = p * f + -2.500000960e-01f;
  p = p * f + 3.333331260e-01f;
  const T square = f * f;
  T y = square * f * p + exponent * -2.12194440e-4f - square * 0.5f;
  y = (f + y) + exponent * 0.693359375f;
  const float infinity = std::numeric_limits<float>::infinity();
  y = x == infinity ? all<T>(infinity) : y;
  y = x == 0.0f ? all<T>(-infinity) : y;
  const T invalid = all<T>(std::numeric_limits<float>::quiet_NaN());
  y = x < 0.0f ? invalid : y;
  return x != x ? x : y;
}

// tanh: 1.3 ulp.
template <class T>
DFC_INLINE T tanh(T x) {
  const T t = magnitude(x), z = x * x;
  T p = z * -5.704987256e-03f + 2.063908748e-02f;
  p = p * z + -5.373971516e-02f;
  p = p * z + 1.333144220e-01f;
  p = p * z + -3.333328194e-01f;
  const T near = (p * z) * t + t;
  const T far = 1.0f - 2.0f / (exp(t + t) + 1.0f);
  return with_sign_of(t < 0.625f ? near : far, x);
}

// erf: 1.2 ulp.
template <class T>
DFC_INLINE T erf(T x) {
  const T t = magnitude(x), z = x * x;
  T p = z * 8.513130945e-05f + -8.175646408e-04f;
  p = p * z + 5.203859885e-03f;
  p = p * z + -2.686050882e-02f;
  p = p * z + 1.128371504e-01f;
  p = p * z + -3.761263498e-01f;
  p = p * z + 1.283791668e-01f;
  const T near = p * x + x;
  const T s = t > 4.0f ? all<T>(4.0f) : t;  // erf is 1 there
  T q = s * -9.584706669e-06f + 3.064897254e-04f;
  q = q * s + -3.576851912e-03f;
  q = q * s + 2.362493721e-02f;
  q = q * s + -1.060796866e-01f;
  q = q * s + -6.352450865e-01f;
  q = q * s + -1.128625729e+00f;
  const T far = 1.0f - exp_nonpositive(q * s);
  return t < 0.9f ? near : t == t ? with_sign_of(far, x) : x;
}

// sigmoid: 2.5 ulp; 0 below -88.7, where the result is no normal number.
template <class T>
DFC_INLINE T sigmoid(T x) {
  return 1.0f / (1.0f + exp(-x));
}

template <class T>
DFC_INLINE T silu(T x) {
  return x / (1.0f + exp(-x));
}

// gelu(x) = x·Phi(x), with Phi(-|x|) as a power of two whose exponent is one polynomial of |x|: no
// cancellation in the negative tail; absolute error below 9e-8 on [-1, 1], 1.2 ulp above.
template <class T>
DFC_INLINE T gelu(T x) {
#if DFC_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<T, vfloat>) return gelu_by_table(x);
#endif
  const T t = magnitude(x);
  T p = t * -3.559280583e-08f + 9.976761500e-07f;
  p = p * t + -1.210935480e-05f;
  p = p * t + 8.124280639e-05f;
  p = p * t + -2.903240299e-04f;
  p = p * t + 1.155004636e-05f;
  p = p * t + 6.943569594e-03f;
  p = p * t + -5.244478137e-02f;
  p = p * t + -4.592183228e-01f;
  p = p * t + -1.151104566e+00f;
  const T tail = exp2_nonpositive(p * t - 1.0f);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// 0.5·x·(1 + tanh(u)) = x·sigmoid(2u) with u = sqrt(2/pi)·(x + 0.044715·x^3).
template <class T>
DFC_INLINE T gelu_tanh(T x) {
  const T u2 = x * (1.595769122f + x * x * 0.071354816f);
  return x / (1.0f + exp(-u2));
}

template <class T>
DFC_INLINE T relu(T x) {
  return x < 0.0f ? all<T>(0.0f) : x;
}

}  // namespace math

#define DFC_FLOAT_FUNCTION(name)                               \
  DFC_INLINE float name(float x) { return math::name(x); }     \
  DFC_INLINE vfloat name(vfloat x) { return math::name(x); }
DFC_FLOAT_FUNCTION(exp)
DFC_FLOAT_FUNCTION(exp_nonpositive)
DFC_FLOAT_FUNCTION(log)
DFC_FLOAT_FUNCTION(tanh)
DFC_FLOAT_FUNCTION(erf)
DFC_FLOAT_FUNCTION(sigmoid)
DFC_FLOAT_FUNCTION(silu)
DFC_FLOAT_FUNCTION(gelu)
DFC_FLOAT_FUNCTION(gelu_tanh)
DFC_FLOAT_FUNCTION(relu)
#undef DFC_FLOAT_FUNCTION

DFC_INLINE double exp(double x) { return std::exp(x); }
DFC_INLINE double exp_nonpositive(double x) { return std::exp(x); }
DFC_INLINE double log(double x) { return std::log(x); }
DFC_INLINE double tanh(double x) { return std::tanh(x); }
DFC_INLINE double erf(double x) { return std::erf(x); }
DFC_INLINE double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
DFC_INLINE double silu(double x) { return x / (1.0 + std::exp(-x)); }
DFC_INLINE double gelu(double x) { return 0.5 * x * std::erfc(x * -0.70710678118654752440); }
DFC_INLINE double gelu_tanh(double x) {
  return x / (1.0 + std::exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}
DFC_INLINE double relu(double x) { return x < 0.0 ? 0.0 : x; }

// Double vectors exist for the matrix product's epilogue alone: lane by lane.
#define DFC_LANEWISE(name)                                       \
  DFC_INLINE vdouble name(vdouble x) {                           \
    for (int i = 0; i < lanes<double>; ++i) x[i] = name(x[i]);   \
    return x;                                                    \
  }
DFC_LANEWISE(exp)
DFC_LANEWISE(exp_nonpositive)
DFC_LANEWISE(tanh)
DFC_LANEWISE(sigmoid)
DFC_LANEWISE(silu)
DFC_LANEWISE(gelu)
DFC_LANEWISE(gelu_tanh)
DFC_LANEWISE(relu)
#undef DFC_LANEWISE

DFC_INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
DFC_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
DFC_INLINE float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
DFC_INLINE double rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
DFC_INLINE float sin(float x) { return std::sin(x); }
DFC_INLINE double sin(double x) { return std::sin(x); }
DFC_INLINE float cos(float x) { return std::cos(x); }
DFC_INLINE double cos(double x) { return std::cos(x); }
DFC_INLINE float floor(float x) { return __builtin_floorf(x); }
DFC_INLINE double floor(double x) { return __builtin_floor(x); }
DFC_INLINE float ceil(float x) { return __builtin_ceilf(x); }
DFC_INLINE double ceil(double x) { return __builtin_ceil(x); }
// To nearest, ties to even.
DFC_INLINE float round(float x) { return __builtin_rintf(x); }
DFC_INLINE double round(double x) { return __builtin_rint(x); }
DFC_INLINE float pow(float x, float y) { return std::pow(x, y); }
DFC_INLINE double pow(double x, double y) { return std::pow(x, y); }

DFC_INLINE float magnitude(float x) { return __builtin_fabsf(x); }
DFC_INLINE double magnitude(double x) { return __builtin_fabs(x); }
DFC_INLINE float with_sign(float x, float sign) { return __builtin_copysignf(x, sign); }
DFC_INLINE double with_sign(double x, double sign) { return __builtin_copysign(x, sign); }
DFC_INLINE float remainder_toward_zero(float a, float b) { return std::fmod(a, b); }
DFC_INLINE double remainder_toward_zero(double a, double b) { return std::fmod(a, b); }

}  // namespace dfc

#define DFC_SCALAR DFC_INLINE
#include "../scalar.h"
