// What a generated program takes from DaCe's runtime, where that is all it takes: <dace/dace.h> takes
// four times as long to parse as all kernels.
#pragma once

#include <cstdint>

#ifndef DACE_EXPORTED
#define DACE_EXPORTED extern "C"
#endif

// Arguments are sizes and positions: not negative, divisors positive.
constexpr std::int64_t int_floor(std::int64_t value, std::int64_t divisor) {
  return value / divisor;
}

constexpr std::int64_t int_ceil(std::int64_t value, std::int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

template <class... Others>
constexpr std::int64_t Min(std::int64_t least, Others... others) {
  ((least = others < least ? others : least), ...);
  return least;
}

template <class... Others>
constexpr std::int64_t Max(std::int64_t greatest, Others... others) {
  ((greatest = others > greatest ? others : greatest), ...);
  return greatest;
}
