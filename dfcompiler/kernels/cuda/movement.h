// Checked indices, for the tasklets of data movement.
#pragma once

#include <cstdint>
#include <type_traits>

#include "math.h"

namespace dfc {

// `index` as a position in 0..extent, negative ones counted from the end. A bad one is reported
// once, in `status` = {1 + site, index}, and stands for position 0. The status lies in memory that
// the host sees; only a bad index is a transaction with it.
template <class I>
DFC_SCALAR std::int64_t checked(I index, std::int64_t extent, std::int64_t* status,
                                std::int64_t site) {
  std::int64_t position = std::int64_t(index);
  if constexpr (std::is_signed_v<I>) {
    position += position < 0 ? extent : 0;
  }
  if (std::uint64_t(position) < std::uint64_t(extent)) return position;
#ifdef __CUDA_ARCH__
  auto* first = reinterpret_cast<unsigned long long*>(status);
  const bool mine = atomicCAS(first, 0ull, static_cast<unsigned long long>(1 + site)) == 0;
#else
  const bool mine = status[0] == 0;
  if (mine) status[0] = 1 + site;
#endif
  if (mine) status[1] = std::int64_t(index);
  return 0;
}

}  // namespace dfc
