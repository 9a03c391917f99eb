// How many threads a call gets: its parallel region takes the number as a `num_threads` clause.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace dfc {

// One below the work, in element-wise operations, that pays for waking the other threads (a fork
// and join of libgomp takes 1 to 2 us while its threads spin); else as many as there are.
inline int threads(std::int64_t work) {
#ifdef _OPENMP
  return work < 32768 ? 1 : omp_get_max_threads();
#else
  (void)work;
  return 1;
#endif
}

}  // namespace dfc
