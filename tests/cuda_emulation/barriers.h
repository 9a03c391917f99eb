// Barriers in shared memory, their phases, arrivals and bytes; and the numbered barriers of warps.
#pragma once

#include <functional>
#include <string>

#include "engine.h"

namespace emulation {

// What one thread does at the barrier of a word in shared memory. It is an error to arrive more
// often than a phase has arrivals, to copy more bytes than are expected, and to wait twice for the
// same phase: that is a parity which has not been turned.
void init_barrier(unsigned long long* word, unsigned arrivals, Place place);
void arrive(unsigned long long* word, unsigned expected_bytes, Place place);
void wait_for_phase(unsigned long long* word, unsigned parity, Place place);

// A copy of so many bytes that the barrier counts. It happens as late as it can: when a thread
// waits for a phase that has not ended.
void add_copy(unsigned long long* word, unsigned bytes, std::function<void()> copy, Place place);

// Numbered barriers, for a number of threads of the block.
void sync_at(int number, int threads, Place place);
void arrive_at(int number, int threads, Place place);

// Forgets the barriers of the block before; and what a block that has ended has left behind, as a
// sentence, or nothing.
void begin_barriers();
std::string left_behind();

}  // namespace emulation
