// Device memory of the emulation: every buffer ends at a page that cannot be touched.
//
//   │ guard │ canary … │ the buffer │ ≤ 15 bytes of canary │ guard │
//
// An access beyond a guard is a fault at once; a canary that was written is found by `check_canaries`.
#pragma once

#include <cstddef>
#include <string>

namespace emulation {

// A buffer of poison, or nullptr; zero bytes give a valid address that must not be read.
void* allocate(std::size_t bytes, std::size_t alignment = 16);

// Whether `pointer` was the start of a buffer.
bool release(void* pointer);

bool is_device_memory(const void* pointer);

// Keeps everything but weights and one buffer from being touched, and the weights from being written,
// until it is opened again.
void close_memory(const void* but);
void open_memory();
bool is_memory_closed();

// Where an address lies: in a sentence about the nearest buffer.
std::string describe_address(const void* address);

// A sentence about a buffer beside which something was written; empty if there is none.
std::string check_canaries();

// Most dynamic shared memory that a kernel may take beside what it declares, and its setter.
std::size_t most_dynamic_bytes(const void* kernel, std::size_t declared);
bool set_most_dynamic_bytes(const void* kernel, std::size_t bytes);

}  // namespace emulation
