#include "memory.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>

#include <sys/mman.h>

#include "engine.h"

namespace emulation {

namespace {

constexpr std::size_t PAGE = 4096;
constexpr std::size_t SHARED_BYTES = 48 << 10, MOST_SHARED_BYTES = 227 << 10;

struct Buffer {
  char* region;
  std::size_t region_bytes, bytes;
  bool is_weight = false;

  void protect(int how) const {
    if (region_bytes > 2 * PAGE) mprotect(region + PAGE, region_bytes - 2 * PAGE, how);
  }
};

bool closed = false;

std::map<std::uintptr_t, Buffer> buffers;  // by the address of the first byte
std::map<const void*, std::size_t> shared_bytes;

std::uintptr_t number(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

bool untouched(const char* from, const char* to) {
  for (; from < to; ++from)
    if (*from != char(POISON)) return false;
  return true;
}

}  // namespace

void* allocate(std::size_t bytes, std::size_t alignment) {
  const std::size_t room = (bytes + alignment - 1) / alignment * alignment;
  const std::size_t pages = (room + PAGE - 1) / PAGE * PAGE;
  const std::size_t all = pages + 2 * PAGE;
  void* memory = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* region = static_cast<char*>(memory);
  if (pages) {
    mprotect(region + PAGE, pages, PROT_READ | PROT_WRITE);
    std::memset(region + PAGE, POISON, pages);
  }
  char* start = region + PAGE + pages - room;
  buffers[number(start)] = {region, all, bytes};
  return start;
}

bool release(void* pointer) {
  const auto found = buffers.find(number(pointer));
  if (found == buffers.end()) return false;
  munmap(found->second.region, found->second.region_bytes);
  buffers.erase(found);
  return true;
}

void close_memory(const void* but) {
  for (const auto& [start, buffer] : buffers)
    if (start != number(but)) buffer.protect(buffer.is_weight ? PROT_READ : PROT_NONE);
  closed = true;
}

void open_memory() {
  if (!closed) return;
  for (const auto& [start, buffer] : buffers) buffer.protect(PROT_READ | PROT_WRITE);
  closed = false;
}

bool is_memory_closed() { return closed; }

bool is_device_memory(const void* pointer) {
  auto found = buffers.upper_bound(number(pointer));
  if (found == buffers.begin()) return false;
  --found;
  return number(pointer) <= found->first + found->second.bytes;
}

std::string describe_address(const void* address) {
  char line[160];
  for (const auto& [start, buffer] : buffers) {
    const std::uintptr_t at = number(address), first = number(buffer.region);
    if (at < first || at >= first + buffer.region_bytes) continue;
    if (closed && at >= start && at < start + buffer.bytes) {
      std::snprintf(line, sizeof line, "a buffer of %zu bytes before it waits for its predecessor",
                    buffer.bytes);
      return line;
    }
    const bool before = at < start;
    std::snprintf(line, sizeof line, "memory %zu bytes %s of a buffer of %zu bytes",
                  before ? start - at : at - start - buffer.bytes,
                  before ? "before the start" : "past the end", buffer.bytes);
    return line;
  }
  std::snprintf(line, sizeof line, "address %p, which is in no buffer", address);
  return line;
}

std::string check_canaries() {
  for (const auto& [start, buffer] : buffers) {
    const char* first = reinterpret_cast<const char*>(start);
    const char* last = buffer.region + buffer.region_bytes - PAGE;
    const bool whole = untouched(buffer.region + PAGE, first) && untouched(first + buffer.bytes, last);
    if (!whole) return "something was written beside a buffer of " + std::to_string(buffer.bytes) + " bytes";
  }
  return "";
}

std::size_t most_dynamic_bytes(const void* kernel, std::size_t declared) {
  const auto found = shared_bytes.find(kernel);
  const bool asked = found != shared_bytes.end();
  const std::size_t all = asked ? MOST_SHARED_BYTES : SHARED_BYTES;
  const std::size_t left = all > declared ? all - declared : 0;
  return asked && found->second < left ? found->second : left;
}

bool set_most_dynamic_bytes(const void* kernel, std::size_t bytes) {
  if (bytes > MOST_SHARED_BYTES) return false;
  shared_bytes[kernel] = bytes;
  return true;
}

}  // namespace emulation

extern "C" {

void* emulation_allocate(std::size_t bytes) { return emulation::allocate(bytes); }

// Kernels may read this buffer before they wait for their predecessor.
void emulation_set_weight(void* pointer) {
  emulation::buffers.at(emulation::number(pointer)).is_weight = true;
}

int emulation_release(void* pointer) { return emulation::release(pointer); }

// Turns damage beside a buffer into the message.
void emulation_check() {
  const std::string found = emulation::check_canaries();
  if (!found.empty()) emulation::set_message(found.c_str());
}
}
