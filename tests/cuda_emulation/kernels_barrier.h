// In place of kernels/cuda/barrier.h.
#pragma once

#include "barriers.h"
#include "ptx.h"

namespace dfc::cuda {

struct alignas(8) Barrier {
  unsigned long long word;

  void init(unsigned arrivals, Place place = Place::current()) {
    emulation::init_barrier(&word, arrivals, place);
  }
  void arrive(Place place = Place::current()) { emulation::arrive(&word, 0, place); }
  void arrive_expecting(unsigned bytes, Place place = Place::current()) {
    emulation::arrive(&word, bytes, place);
  }
  void wait(unsigned parity, Place place = Place::current()) {
    emulation::wait_for_phase(&word, parity, place);
  }
};

inline void fence_barriers() {}

}  // namespace dfc::cuda
