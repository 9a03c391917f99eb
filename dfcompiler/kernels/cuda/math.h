// Arithmetic on one element with the semantics of the IR, on the device and on the host.
//
// Names and meaning are those of cpu/elementwise.h and cpu/math.h, so that the text of a tasklet
// serves both targets; what both have in common is in scalar.h. Elementary functions of float are
// CUDA's own (expf, erff, tanhf: at most 2 ulp) but for gelu, which is the polynomial of
// cpu/math.h: a dozen multiply-adds and one exp2, without cancellation.
//
// Include as "cuda/math.h": this folder on the include path would hide the C library's <math.h>.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define DFC_SCALAR __host__ __device__ __forceinline__
#else
#define DFC_SCALAR inline
#endif

namespace dfc {

#define DFC_BY_TYPE(name, of_float, of_double)                 \
  DFC_SCALAR float name(float x) { return ::of_float(x); }     \
  DFC_SCALAR double name(double x) { return ::of_double(x); }
DFC_BY_TYPE(exp, expf, exp)
DFC_BY_TYPE(exp_nonpositive, expf, exp)
DFC_BY_TYPE(log, logf, log)
DFC_BY_TYPE(sqrt, sqrtf, sqrt)
DFC_BY_TYPE(sin, sinf, sin)
DFC_BY_TYPE(cos, cosf, cos)
DFC_BY_TYPE(tanh, tanhf, tanh)
DFC_BY_TYPE(erf, erff, erf)
DFC_BY_TYPE(floor, floorf, floor)
DFC_BY_TYPE(ceil, ceilf, ceil)
// To nearest, ties to even.
DFC_BY_TYPE(round, rintf, rint)
#undef DFC_BY_TYPE

DFC_SCALAR float rsqrt(float x) { return 1.0f / ::sqrtf(x); }
DFC_SCALAR double rsqrt(double x) { return 1.0 / ::sqrt(x); }
DFC_SCALAR float sigmoid(float x) { return 1.0f / (1.0f + ::expf(-x)); }
DFC_SCALAR double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }
DFC_SCALAR float silu(float x) { return x / (1.0f + ::expf(-x)); }
DFC_SCALAR double silu(double x) { return x / (1.0 + ::exp(-x)); }
DFC_SCALAR float relu(float x) { return x < 0.0f ? 0.0f : x; }
DFC_SCALAR double relu(double x) { return x < 0.0 ? 0.0 : x; }

// x·Phi(x), with Phi(-|x|) as a power of two whose exponent is one polynomial of |x|: absolute
// error below 9e-8 on [-1, 1], 2 ulp above.
DFC_SCALAR float gelu(float x) {
  const float t = ::fabsf(x);
  float p = t * -3.559280583e-08f + 9.976761500e-07f;
  p = p * t + -1.210935480e-05f;
  p = p * t + 8.124280639e-05f;
  p = p * t + -2.903240299e-04f;
  p = p * t + 1.155004636e-05f;
  p = p * t + 6.943569594e-03f;
  p = p * t + -5.244478137e-02f;
  p = p * t + -4.592183228e-01f;
  p = p * t + -1.151104566e+00f;
  const float tail = ::exp2f(p * t - 1.0f);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}
DFC_SCALAR double gelu(double x) { return 0.5 * x * ::erfc(x * -0.70710678118654752440); }

// 0.5·x·(1 + tanh(u)) = x·sigmoid(2u) with u = sqrt(2/pi)·(x + 0.044715·x^3).
DFC_SCALAR float gelu_tanh(float x) {
  return x / (1.0f + ::expf(-x * (1.595769122f + x * x * 0.071354816f)));
}
DFC_SCALAR double gelu_tanh(double x) {
  return x / (1.0 + ::exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

DFC_SCALAR float pow(float x, float y) { return ::powf(x, y); }
DFC_SCALAR double pow(double x, double y) { return ::pow(x, y); }

// A truth value as 0 or 1.
DFC_SCALAR int flag(bool x) { return x ? 1 : 0; }

DFC_SCALAR float magnitude(float x) { return ::fabsf(x); }
DFC_SCALAR double magnitude(double x) { return ::fabs(x); }
DFC_SCALAR float with_sign(float x, float sign) { return ::copysignf(x, sign); }
DFC_SCALAR double with_sign(double x, double sign) { return ::copysign(x, sign); }
DFC_SCALAR float remainder_toward_zero(float a, float b) { return ::fmodf(a, b); }
DFC_SCALAR double remainder_toward_zero(double a, double b) { return ::fmod(a, b); }

}  // namespace dfc

#include "../scalar.h"
