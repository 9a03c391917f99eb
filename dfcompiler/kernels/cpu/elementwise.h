// What tasklets of element-wise maps call: arithmetic on one element, and truth values as numbers.
#pragma once

#include "math.h"

namespace dfc {

// A truth value as 0 or 1. GCC 12 vectorizes comparisons of integers but no logic on `bool`, so
// the IR's logic is written as `(flag(a) & flag(b)) > 0`, `flag(a) < 1`, `flag(c) > 0 ? x : y`.
DFC_INLINE int flag(bool x) {
  return __builtin_bit_cast(unsigned char, x);
}

}  // namespace dfc
