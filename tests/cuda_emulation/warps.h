// What the threads of a warp do together: shuffles, votes, sums.
#pragma once

#include <cstring>
#include <type_traits>

#include "engine.h"

namespace emulation {

// What a lane hands in and what it gets.
template <class T>
struct Exchange {
  T value, result;
  int from;
};

inline unsigned lane_index() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize;
}

template <class T>
void exchange(void* const* lanes) {
  for (int lane = 0; lane < warpSize; ++lane) {
    auto* own = static_cast<Exchange<T>*>(lanes[lane]);
    if (!own) continue;
    auto* other = static_cast<Exchange<T>*>(lanes[own->from]);
    // The value of a lane that does not take part is undefined.
    if (other) own->result = other->value;
    else std::memset(static_cast<void*>(&own->result), POISON, sizeof own->result);
  }
}

template <class T>
T shuffle(const char* name, unsigned mask, T value, int from, Place place) {
  static_assert(std::is_trivially_copyable_v<T>);
  Exchange<T> own{value, value, from};
  collective(name, place, mask, &own, exchange<T>);
  return own.result;
}

struct Vote {
  bool predicate;
  unsigned result;
};

inline void count_votes(void* const* lanes) {
  unsigned votes = 0;
  for (int lane = 0; lane < warpSize; ++lane)
    if (lanes[lane] && static_cast<Vote*>(lanes[lane])->predicate) votes |= 1u << lane;
  for (int lane = 0; lane < warpSize; ++lane)
    if (lanes[lane]) static_cast<Vote*>(lanes[lane])->result = votes;
}

inline unsigned vote(const char* name, unsigned mask, bool predicate, Place place) {
  Vote own{predicate, 0};
  collective(name, place, mask, &own, count_votes);
  return own.result;
}

// Lanes of one group of `width` hand in a value; all of them get fold(…fold(first, second)…, last).
template <class T, class Fold>
T reduce(const char* name, unsigned mask, T value, Place place, Fold) {
  Exchange<T> own{value, value, 0};
  collective(name, place, mask, &own, [](void* const* lanes) {
    bool first = true;
    T sum{};
    for (int lane = 0; lane < warpSize; ++lane) {
      auto* other = static_cast<Exchange<T>*>(lanes[lane]);
      if (!other) continue;
      sum = first ? other->value : Fold{}(sum, other->value);
      first = false;
    }
    for (int lane = 0; lane < warpSize; ++lane)
      if (lanes[lane]) static_cast<Exchange<T>*>(lanes[lane])->result = sum;
  });
  return own.result;
}

}  // namespace emulation

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       emulation::Place place = emulation::Place::current()) {
  emulation::collective("__syncwarp", place, mask, nullptr, nullptr);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = warpSize,
              emulation::Place place = emulation::Place::current()) {
  const int lane = emulation::lane_index(), base = lane / width * width;
  return emulation::shuffle("__shfl_sync", mask, value, base + (from & (width - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize,
                  emulation::Place place = emulation::Place::current()) {
  const int lane = emulation::lane_index(), from = lane ^ bits;
  const bool inside = from / width <= lane / width;
  return emulation::shuffle("__shfl_xor_sync", mask, value, inside ? from : lane, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                   emulation::Place place = emulation::Place::current()) {
  const int lane = emulation::lane_index();
  const bool inside = lane % width + int(distance) < width;
  return emulation::shuffle("__shfl_down_sync", mask, value, inside ? lane + int(distance) : lane,
                            place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                 emulation::Place place = emulation::Place::current()) {
  const int lane = emulation::lane_index();
  const bool inside = lane % width >= int(distance);
  return emulation::shuffle("__shfl_up_sync", mask, value, inside ? lane - int(distance) : lane,
                            place);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulation::Place place = emulation::Place::current()) {
  return emulation::vote("__ballot_sync", mask, predicate != 0, place);
}
inline int __any_sync(unsigned mask, int predicate,
                      emulation::Place place = emulation::Place::current()) {
  return emulation::vote("__any_sync", mask, predicate != 0, place) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      emulation::Place place = emulation::Place::current()) {
  return emulation::vote("__all_sync", mask, predicate == 0, place) == 0;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, emulation::Place place = emulation::Place::current()) {
  return emulation::reduce("__reduce_add_sync", mask, value, place,
                           [](T a, T b) { return T(a + b); });
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, emulation::Place place = emulation::Place::current()) {
  return emulation::reduce("__reduce_max_sync", mask, value, place,
                           [](T a, T b) { return a < b ? b : a; });
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, emulation::Place place = emulation::Place::current()) {
  return emulation::reduce("__reduce_min_sync", mask, value, place,
                           [](T a, T b) { return b < a ? b : a; });
}
