// In place of kernels/cuda/warp_group.h.
#pragma once

#include "barriers.h"
#include "ptx.h"

namespace dfc::cuda {

constexpr int registers_at_start(int threads) { return 65536 / threads / 8 * 8; }

template <int count>
void give_back_registers_to(Place place = Place::current()) {
  emulation::collective("give_back_registers_to", place, 0xffffffffu, nullptr, nullptr);
}
template <int count>
void take_registers_to(Place place = Place::current()) {
  emulation::collective("take_registers_to", place, 0xffffffffu, nullptr, nullptr);
}

inline void sync_at(int number, int threads, Place place = Place::current()) {
  emulation::collective("sync_at", place, 0xffffffffu, nullptr, nullptr);
  emulation::sync_at(number, threads, place);
}
inline void arrive_at(int number, int threads, Place place = Place::current()) {
  emulation::collective("arrive_at", place, 0xffffffffu, nullptr, nullptr);
  emulation::arrive_at(number, threads, place);
}

}  // namespace dfc::cuda
