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

// Whether no index behind number `row` names the same position of an axis of `extent`.
template <class I>
DFC_SCALAR bool is_last(const I* indices, std::int64_t row, std::int64_t count,
                        std::int64_t extent) {
  const auto position = [=](std::int64_t i) {
    const std::int64_t index = std::int64_t(indices[i]);
    return index < 0 ? index + extent : index;
  };
  const std::int64_t mine = position(row);
  for (std::int64_t later = row + 1; later < count; ++later) {
    if (position(later) == mine) return false;
  }
  return true;
}

}  // namespace dfc
