// The processor as the device: weights are read where they are mapped, tensors where they lie.
#pragma once

#include <omp.h>
#ifdef __AMX_TILE__
#include "cpu/amx.h"
#endif

static const int64_t kAlignment = 64;
static const int64_t kHugePage = int64_t(1) << 21;

struct Device {
  int32_t threads;  // of a run; 0: OpenMP decides
};

struct OnDevice {
  ~OnDevice() {}
};

// Whether the system lets this process use what the code was compiled for.
static int may_run() {
#ifdef __AMX_TILE__
  if (!dfc::amx::permitted())
    return fail(MODEL(INTERNAL),
                "the system does not let this process use the processor's matrix tiles (AMX); "
                "compile the model for cpu:x86-64-v4+bf16");
#endif
  return MODEL(OK);
}

static int open_device(Device *) { return MODEL(OK); }
static void close_device(Device *) {}

static char *allocate(int64_t bytes) {
  void *memory = nullptr;
  const bool huge = bytes >= kHugePage;
  if (posix_memalign(&memory, huge ? kHugePage : kAlignment, size_t(bytes))) return nullptr;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(memory, size_t(bytes), MADV_HUGEPAGE);
#endif
  return (char *)memory;
}

static void give_back(char *memory) { std::free(memory); }

static int no_memory(const char *what, int64_t bytes) {
  return fail(MODEL(NO_MEMORY), "out of memory: %s %lld bytes", what, (long long)bytes);
}

static int program_failed() { return fail(MODEL(NO_MEMORY), "out of memory"); }

// Fills memory of the device from other memory of it, or with zeros.
static int set_memory(char *to, const char *from, int64_t bytes) {
  if (from)
    std::memcpy(to, from, size_t(bytes));
  else
    std::memset(to, 0, size_t(bytes));
  return MODEL(OK);
}

static char *take_weights(char *mapped, int64_t) { return mapped; }
static void drop_weights(char *base, int64_t bytes) { munmap(base, size_t(bytes)); }

static void inherit(Device *device, const Device &from) { device->threads = from.threads; }

static int set_threads(Device *device, int32_t threads) {
  device->threads = threads;
  return MODEL(OK);
}

// Calls the program; memory.status tells afterwards which index was bad.
static int call_on_device(Device *device, void *program, const Memory &memory,
                          const int64_t *symbols, const int64_t *, const int64_t *) {
  const int threads = omp_get_max_threads();
  if (device->threads) omp_set_num_threads(device->threads);
  int result = MODEL(OK);
  try {
    call_program(program, memory, symbols);
  } catch (const std::bad_alloc &) {
    result = fail(MODEL(NO_MEMORY), "out of memory while running");
  } catch (const std::exception &error) {
    result = fail(MODEL(INTERNAL), "the program failed: %s", error.what());
  }
  if (device->threads) omp_set_num_threads(threads);
  return result;
}
