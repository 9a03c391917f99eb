// An instance: mapped weights that instances share, persistent state and arena of its own.
#pragma once

#include <dlfcn.h>
#include <fcntl.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#ifdef __AMX_TILE__
#include "cpu/amx.h"
#endif

#pragma GCC visibility push(default)
#include "model.h"
#pragma GCC visibility pop

typedef __int128 wide;  // products of extents that a caller invents do not overflow it

static wide floor_div(wide a, wide b) {
  wide quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0));
}
static wide ceil_div(wide a, wide b) { return -floor_div(-a, b); }
static wide modulo(wide a, wide b) { return a - b * floor_div(a, b); }
static wide greater(wide a, wide b) { return a > b ? a : b; }
static wide smaller(wide a, wide b) { return a < b ? a : b; }

struct DimInfo {
  int32_t symbol;    // the symbol that this extent fixes, or -1
  int32_t value;     // index of its expression among the evaluated ones
  const char *text;  // the expression, for messages
};
struct TensorInfo {
  const char *name;
  int32_t dtype, rank, first_dim;
};
struct SymbolInfo {
  const char *name;
  int64_t maximum;
};
struct PersistInfo {
  const char *name;
  int64_t bytes;
  int64_t initial;  // offset in the weights file, or -1 for zeros
};
struct Memory {  // what the generated call takes its pointers from
  void *const *inputs;
  void *const *outputs;
  char *weights, *persist, *arena;
  const int64_t *slots, *persist_offsets;
  int64_t *status;
};

#include "tables.h"

static const struct {
  const char *name;
  int64_t bytes;
} dtypes[] = {{"float64", 8}, {"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"int64", 8},
              {"int32", 4},   {"int16", 2},   {"int8", 1},    {"uint64", 8},   {"uint32", 4},
              {"uint16", 2},  {"uint8", 1},   {"bool", 1}};
static const int64_t kAlignment = 64;
static const int64_t kHugePage = int64_t(1) << 21;
static const int64_t kMostBytes = int64_t(1) << 47;  // the address space of a process
static const int64_t kMostExtent = INT32_MAX;

struct Weights {
  char *base;
  int64_t bytes;
  std::atomic<int> users;
};

struct MODEL(model) {
  Weights *weights;
  void *program;
  char *persist, *arena;
  int64_t arena_bytes, needed_bytes;
  int32_t threads;
  bool resolved;  // symbols, values and slots below belong together
  std::atomic_flag busy;
  int64_t symbols[kSymbols + 1], values[kValues + 1], slots[kSlots + 1];
  int64_t persist_offsets[kPersist + 1];
};
typedef struct MODEL(model) Model;
typedef struct MODEL(tensor) Tensor;

static thread_local char error_text[1024] = "";

__attribute__((format(printf, 2, 3))) static int fail(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  return status;
}

static int fail_null() { return fail(MODEL(BAD_ARGUMENT), "the model is null"); }

static int fail_busy() {
  return fail(MODEL(BUSY), "another thread is running this instance; clone it for each thread");
}

static void *allocate(int64_t bytes) {
  void *memory = nullptr;
  const bool huge = bytes >= kHugePage;
  if (posix_memalign(&memory, huge ? kHugePage : kAlignment, size_t(bytes))) return nullptr;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(memory, size_t(bytes), MADV_HUGEPAGE);
#endif
  return memory;
}

static const char *beside_library(char *path, size_t size) {
  Dl_info info;
  if (!dladdr((void *)&beside_library, &info) || !info.dli_fname) return nullptr;
  const char *slash = std::strrchr(info.dli_fname, '/');
  const int folder = slash ? int(slash - info.dli_fname) : 1;
  const int length =
      std::snprintf(path, size, "%.*s/weights.bin", folder, slash ? info.dli_fname : ".");
  return length > 0 && size_t(length) < size ? path : nullptr;
}

static Weights *map_weights(const char *given) {
  char beside[4096];
  const char *path = given ? given : beside_library(beside, sizeof beside);
  if (!path) {
    fail(MODEL(BAD_WEIGHTS), "the library's folder is not known; pass the path of weights.bin");
    return nullptr;
  }
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    fail(MODEL(BAD_WEIGHTS), "weights file %s cannot be opened: %s", path, std::strerror(errno));
    return nullptr;
  }
  struct stat facts;
  char *base = nullptr;
  if (fstat(file, &facts) || facts.st_size != kWeightBytes) {
    fail(MODEL(BAD_WEIGHTS), "weights file %s has %lld bytes; expected %lld", path,
         (long long)facts.st_size, (long long)kWeightBytes);
  } else {
    void *mapped = mmap(nullptr, size_t(kWeightBytes), PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
      fail(MODEL(BAD_WEIGHTS), "weights file %s cannot be mapped: %s", path, std::strerror(errno));
    } else if (std::memcmp(mapped, kWeightHeader, sizeof kWeightHeader - 1)) {
      fail(MODEL(BAD_WEIGHTS), "weights file %s belongs to another model or version", path);
      munmap(mapped, size_t(kWeightBytes));
    } else {
      base = (char *)mapped;
    }
  }
  close(file);
  if (!base) return nullptr;
  Weights *weights = new (std::nothrow) Weights{base, kWeightBytes, {0}};
  if (!weights) munmap(base, size_t(kWeightBytes));
  return weights;
}

static void release(Weights *weights) {
  if (--weights->users) return;
  munmap(weights->base, size_t(weights->bytes));
  delete weights;
}

static void initialize_state(Model *model) {
  for (int i = 0; i < kPersist; ++i) {
    char *to = model->persist + model->persist_offsets[i];
    const PersistInfo &info = persist_table[i];
    if (info.initial < 0)
      std::memset(to, 0, size_t(info.bytes));
    else
      std::memcpy(to, model->weights->base + info.initial, size_t(info.bytes));
  }
}

// Whether the system lets this process use what the code was compiled for.
static bool may_run() {
#ifdef __AMX_TILE__
  if (!dfc::amx::permitted()) {
    fail(MODEL(INTERNAL),
         "the system does not let this process use the processor's matrix tiles (AMX); "
         "compile the model for cpu:x86-64-v4+bf16");
    return false;
  }
#endif
  return true;
}

static Model *instance(Weights *weights, int32_t threads) {
  if (!may_run()) return nullptr;
  Model *model = new (std::nothrow) Model();
  if (!model) {
    fail(MODEL(NO_MEMORY), "out of memory");
    return nullptr;
  }
  model->weights = weights;
  ++weights->users;
  model->threads = threads;
  int64_t bytes = 0;
  for (int i = 0; i < kPersist; ++i) {
    model->persist_offsets[i] = bytes;
    bytes += (persist_table[i].bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  model->program = start_program();
  if (bytes) model->persist = (char *)allocate(bytes);
  if (!model->program || (bytes && !model->persist)) {
    fail(MODEL(NO_MEMORY), "out of memory: the persistent state needs %lld bytes",
         (long long)bytes);
    MODEL(destroy)(model);
    return nullptr;
  }
  initialize_state(model);
  return model;
}
