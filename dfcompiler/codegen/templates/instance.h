// An instance: weights that instances share, persistent state and arena of its own. Where they lie
// and how a call is made is up to the device (device.h).
#pragma once

#include <dlfcn.h>
#include <fcntl.h>
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

typedef struct MODEL(tensor) Tensor;

static const struct {
  const char *name;
  int64_t bytes;
} dtypes[] = {{"float64", 8}, {"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"int64", 8},
              {"int32", 4},   {"int16", 2},   {"int8", 1},    {"uint64", 8},   {"uint32", 4},
              {"uint16", 2},  {"uint8", 1},   {"bool", 1}};
static const int64_t kMostBytes = int64_t(1) << 47;  // the address space of a process
static const int64_t kMostExtent = INT32_MAX;

static thread_local char error_text[1024] = "";
static thread_local int error_status = MODEL(OK);

__attribute__((format(printf, 2, 3))) static int fail(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  return error_status = status;
}

static int fail_null() { return fail(MODEL(BAD_ARGUMENT), "the model is null"); }

static int fail_busy() {
  return fail(MODEL(BUSY), "another thread is running this instance; clone it for each thread");
}

#include "device.h"
#include "weights.h"

struct MODEL(model) {
  Weights *weights;
  Device device;
  void *program;
  char *persist, *arena;
  int64_t arena_bytes, needed_bytes;
  bool resolved;  // symbols, values and slots below belong together
  std::atomic_flag busy;
  int64_t symbols[kSymbols + 1], values[kValues + 1], slots[kSlots + 1];
  int64_t persist_offsets[kPersist + 1];
};
typedef struct MODEL(model) Model;

static int initialize_state(Model *model) {
  for (int i = 0; i < kPersist; ++i) {
    char *to = model->persist + model->persist_offsets[i];
    const PersistInfo &info = persist_table[i];
    const char *from = info.initial < 0 ? nullptr : model->weights->base + info.initial;
    if (int status = set_memory(to, from, info.bytes)) return status;
  }
  return MODEL(OK);
}

static int start(Model *model, int64_t persist_bytes) {
  if (int status = open_device(&model->device)) return status;
  model->program = start_program();
  if (!model->program) return program_failed();
  if (persist_bytes) {
    model->persist = allocate(persist_bytes);
    if (!model->persist) return no_memory("the persistent state needs", persist_bytes);
  }
  return initialize_state(model);
}

static Model *instance(Weights *weights) {
  Model *model = new (std::nothrow) Model();
  if (!model) {
    fail(MODEL(NO_MEMORY), "out of memory");
    return nullptr;
  }
  model->weights = weights;
  ++weights->users;
  int64_t bytes = 0;
  for (int i = 0; i < kPersist; ++i) {
    model->persist_offsets[i] = bytes;
    bytes += (persist_table[i].bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  if (start(model, bytes)) {
    MODEL(destroy)(model);
    return nullptr;
  }
  return model;
}
