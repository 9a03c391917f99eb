// The scheduler behind engine.h.
#include "engine.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <cxxabi.h>
#include <dlfcn.h>

#include "async_view.h"
#include "barriers.h"
#include "fibers.h"
#include "memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

unsigned long block_number = 0;

namespace {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;

const void* kernel = nullptr;
unsigned threads = 0;
bool backwards = false, parted = false;  // parted: early kernels are run in two parts
bool early = false;                      // the running one is
bool failed = false;
bool progress = false;
unsigned char* shared = nullptr;
std::size_t shared_size = 0, static_size = 0;
char text[2048] = "";

// ------------------------------------------------------------------------------------------ errors

std::string kernel_name() {
  Dl_info info;
  if (!dladdr(kernel, &info) || !info.dli_sname) return "a kernel";
  int status = 0;
  char* plain = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  std::string name = plain ? plain : info.dli_sname;
  std::free(plain);
  return name.substr(0, name.find('('));
}

__attribute__((format(printf, 1, 2))) void explain(const char* format, ...) {
  failed = true;
  if (text[0]) return;
  const int used = std::snprintf(text, sizeof text, "kernel %s: ", kernel_name().c_str());
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text + used, sizeof text - used, format, arguments);
  va_end(arguments);
}

const char* base_name(Place place) { return basename(place.file_name()); }

std::string described(const Fiber& fiber) {
  char line[256];
  const int used = std::snprintf(line, sizeof line, "thread (%u, %u, %u) ", fiber.thread.x,
                                 fiber.thread.y, fiber.thread.z);
  if (fiber.state == State::done)
    std::snprintf(line + used, sizeof line - used, "has ended");
  else
    std::snprintf(line + used, sizeof line - used, "waits at %s, %s:%u", fiber.operation,
                  base_name(fiber.place), unsigned(fiber.place.line()));
  return fiber.state == State::waiting ? std::string(line) + ", " + fiber.missing() : line;
}

void explain_divergence(const Fiber& waiting, const Fiber& missing) {
  explain("block (%u, %u, %u): %s, which not all reach: %s", blockIdx.x, blockIdx.y, blockIdx.z,
          described(waiting).c_str(), described(missing).c_str());
}

void explain_fault(const std::string& what) {
  explain("block (%u, %u, %u), thread (%u, %u, %u) %s", blockIdx.x, blockIdx.y, blockIdx.z,
          threadIdx.x, threadIdx.y, threadIdx.z, what.c_str());
}

// ------------------------------------------------------------------------------------------- waits

bool same_operation(const Fiber& a, const Fiber& b) {
  return a.place.line() == b.place.line() && a.place.column() == b.place.column() &&
         !std::strcmp(a.operation, b.operation) &&
         !std::strcmp(a.place.file_name(), b.place.file_name());
}

Fiber& lane_of(unsigned warp, unsigned lane) { return *fibers[warp * WARP + lane]; }

unsigned lanes_of(unsigned warp) {
  const unsigned left = threads - warp * WARP;
  return left < WARP ? left : WARP;
}

// Completes the operation at which a lane waits; false if one of its lanes is not there.
bool complete_collective(unsigned warp, unsigned first) {
  const Fiber& waiting = lane_of(warp, first);
  const unsigned count = lanes_of(warp), mask = waiting.mask;
  void* arguments[WARP] = {};
  if (!(mask >> first & 1)) {
    explain("%s with mask %08x, in which it is not", described(waiting).c_str(), mask);
    return false;
  }
  for (unsigned lane = 0; lane < WARP; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (lane >= count) {
      explain("%s with mask %08x, but its warp has %u threads", described(waiting).c_str(), mask,
              count);
      return false;
    }
    const Fiber& other = lane_of(warp, lane);
    const bool here = other.state == State::at_collective && other.mask == mask;
    if (!here || !same_operation(waiting, other)) return false;
    arguments[lane] = other.argument;
  }
  if (waiting.complete) waiting.complete(arguments);
  for (unsigned lane = 0; lane < count; ++lane)
    if (mask >> lane & 1) lane_of(warp, lane).state = State::ready;
  return true;
}

// Runs a warp until each of its threads has ended or waits at the block's barrier.
void run_warp(unsigned warp) {
  const unsigned count = lanes_of(warp);
  for (bool moved = true; moved && !failed;) {
    moved = false;
    for (unsigned i = 0; i < count && !failed; ++i) {
      Fiber& fiber = lane_of(warp, backwards ? count - 1 - i : i);
      if (fiber.state != State::ready) continue;
      threadIdx = fiber.thread;
      resume(fiber);
    }
    for (unsigned lane = 0; lane < count && !failed; ++lane)
      if (lane_of(warp, lane).state == State::at_collective)
        moved |= complete_collective(warp, lane);
  }
  for (unsigned lane = 0; lane < count && !failed; ++lane) {
    const Fiber& waiting = lane_of(warp, lane);
    if (waiting.state != State::at_collective) continue;
    for (unsigned other = 0; other < count && !failed; ++other) {
      const Fiber& missing = lane_of(warp, other);
      if (missing.state == State::waiting) continue;  // it may still come
      const bool here = missing.state == State::at_collective && same_operation(waiting, missing);
      if (waiting.mask >> other & 1 && !(here && missing.mask == waiting.mask))
        explain_divergence(waiting, missing);
    }
  }
}

constexpr const char* WAIT = "wait_for_predecessor";

// Whether the block goes on: all of its threads wait at the same barrier.
bool pass_barrier() {
  Fiber* waiting = nullptr;
  int count = 0;
  for (unsigned i = 0; i < threads; ++i)
    if (fibers[i]->state == State::at_barrier) waiting = fibers[i].get();
  if (!waiting) return false;
  for (unsigned i = 0; i < threads; ++i) {
    const Fiber& other = *fibers[i];
    if (other.state != State::at_barrier || !same_operation(*waiting, other)) {
      explain_divergence(*waiting, other);
      return false;
    }
    count += other.predicate;
  }
  if (!std::strcmp(waiting->operation, WAIT)) open_memory();
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i]->count = count;
    fibers[i]->state = State::ready;
  }
  return true;
}

// Whether a thread that waits for others may go on: something happened since the last time.
bool wake_waiting() {
  if (!progress) return false;
  progress = false;
  bool any = false;
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i]->state != State::waiting) continue;
    fibers[i]->state = State::ready;
    any = true;
  }
  return any;
}

// At the end of a block all threads have ended, and so has what they started.
void check_end() {
  for (unsigned i = 0; i < threads && !failed; ++i)
    if (fibers[i]->state != State::done)
      explain("block (%u, %u, %u) stands still: %s", blockIdx.x, blockIdx.y, blockIdx.z,
              described(*fibers[i]).c_str());
  const std::string left = left_behind();
  if (!failed && !left.empty())
    explain("block (%u, %u, %u) ends with %s", blockIdx.x, blockIdx.y, blockIdx.z, left.c_str());
}

void run_block() {
  ++block_number;
  progress = false;
  begin_barriers();
  static_size = 0;
  if (shared_size) std::memset(shared, POISON, shared_size);
  begin_view(shared, shared_size);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.state = State::ready;
    fiber.thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    fiber.open.clear();
    fiber.closed.clear();
    fiber.products = {};
    fiber.passed.clear();
  }
  const unsigned warps = (threads + WARP - 1) / WARP;
  if (early) close_memory(shared);
  do {
    for (unsigned i = 0; i < warps && !failed; ++i) run_warp(backwards ? warps - 1 - i : i);
  } while (!failed && (wake_waiting() || pass_barrier()));
  if (!failed && is_memory_closed())
    explain("block (%u, %u, %u) ends and has not waited for its predecessor", blockIdx.x,
            blockIdx.y, blockIdx.z);
  open_memory();
  check_end();
}

void run_grid() {
  const unsigned long blocks = 1ul * gridDim.x * gridDim.y * gridDim.z;
  for (unsigned long i = 0; i < blocks && !failed; ++i) {
    const unsigned long at = backwards ? blocks - 1 - i : i;
    blockIdx = {unsigned(at % gridDim.x), unsigned(at / gridDim.x % gridDim.y),
                unsigned(at / gridDim.x / gridDim.y)};
    run_block();
  }
}

bool launchable(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const unsigned long count = 1ul * block.x * block.y * block.z;
  if (!count || count > MOST_THREADS || block.z > 64)
    explain("blocks of %u x %u x %u threads", block.x, block.y, block.z);
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    explain("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
  if (shared_bytes > most_dynamic_bytes(kernel, 0))
    explain("%zu bytes of dynamic shared memory, allowed are %zu", shared_bytes,
            most_dynamic_bytes(kernel, 0));
  return !failed;
}

}  // namespace

void collective(const char* operation, Place place, unsigned mask, void* argument,
                Complete complete) {
  Fiber& fiber = *current;
  fiber.operation = operation;
  fiber.place = place;
  fiber.mask = mask;
  fiber.argument = argument;
  fiber.complete = complete;
  fiber.state = State::at_collective;
  yield();
}

int barrier(const char* operation, Place place, bool predicate) {
  Fiber& fiber = *current;
  fiber.operation = operation;
  fiber.place = place;
  fiber.predicate = predicate;
  fiber.state = State::at_barrier;
  yield();
  return fiber.count;
}

void wait_until(const char* operation, Place place, const std::function<bool()>& ready,
                const std::function<std::string()>& missing) {
  while (!ready()) {
    Fiber& fiber = *current;
    fiber.operation = operation;
    fiber.place = place;
    fiber.missing = missing;
    fiber.state = State::waiting;
    yield();
  }
}

void note_progress() { progress = true; }

void touch(const void* address) { static_cast<void>(*static_cast<const volatile char*>(address)); }

void wait_for_predecessor(Place place) {
  if (early) barrier(WAIT, place, false);
}

void copy_async(void* to, const void* from, int bytes, int room) {
  if (bytes) touch(from);  // it may be read from now on
  std::memset(to, POISON, room);
  current->open.push_back({to, from, bytes, room});
}

void commit_copies() {
  current->closed.push_back(std::move(current->open));
  current->open.clear();
}

void wait_for_copies(int pending) {
  for (auto& groups = current->closed; groups.size() > std::size_t(pending); groups.pop_front())
    for (const Copy& copy : groups.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes);
      std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.room - copy.bytes);
    }
}

void fail(const char* sentence, Place place) {
  explain("block (%u, %u, %u), thread (%u, %u, %u) at %s:%u: %s", blockIdx.x, blockIdx.y,
          blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, base_name(place),
          unsigned(place.line()), sentence);
  leave();
}

void take_shared(std::size_t bytes, Place place) {
  static_size += bytes;
  if (shared_size > most_dynamic_bytes(kernel, static_size))
    fail("more shared memory, declared and dynamic, than a block gets", place);
}

unsigned char* dynamic_shared() { return shared; }

cudaError_t launch(const void* function, void (*call)(void*), void* arguments, dim3 grid,
                   dim3 block, std::size_t shared_bytes, Begins begins) {
  kernel = function;
  early = parted && begins == Begins::early;
  failed = false;
  if (!launchable(grid, block, shared_bytes)) return cudaErrorInvalidConfiguration;
  set_body(call, arguments);
  gridDim = grid;
  blockDim = block;
  threads = block.x * block.y * block.z;
  make_fibers(threads);
  shared_size = shared_bytes;
  shared = static_cast<unsigned char*>(allocate(shared_bytes, 128));
  {
    const Faults faults(explain_fault);
    run_grid();
  }
  release(shared);
  if (!failed) return cudaSuccess;
  abandon_fibers();
  return cudaErrorLaunchFailure;
}

const char* message() { return text; }

void set_message(const char* sentence) {
  if (!text[0]) std::snprintf(text, sizeof text, "%s", sentence);
}

void clear_message() { text[0] = '\0'; }

}  // namespace emulation

extern "C" {

void emulation_set_order(int order) {
  emulation::backwards = order != 0;
  emulation::parted = !emulation::backwards;
}
const char* emulation_message() { return emulation::message(); }
// The kernel that was launched last.
const char* emulation_kernel() {
  static std::string name;
  name = emulation::kernel_name();
  return name.c_str();
}
void emulation_clear_message() { emulation::clear_message(); }
}
