// The C interface over the generated program: checks calls, resolves sizes, plans memory.
//
// Everything that depends on the model is in tables.h; this file is the same for every model.
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

// ------------------------------------------------------------------------------------- memory

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
    fail(MODEL(BAD_WEIGHTS), "the folder of the library is not known; pass the path of weights.bin");
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

static Model *instance(Weights *weights, int32_t threads) {
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
    fail(MODEL(NO_MEMORY), "out of memory: the persistent state needs %lld bytes", (long long)bytes);
    MODEL(destroy)(model);
    return nullptr;
  }
  initialize_state(model);
  return model;
}

// ------------------------------------------------------------------------------ sizes of a call

static int check_tensor(Model *model, const Tensor &tensor, const TensorInfo &info) {
  if (tensor.dtype != info.dtype) {
    const bool known = tensor.dtype >= 0 && tensor.dtype <= 12;
    return fail(MODEL(BAD_DTYPE), "%s has dtype %s; expected %s", info.name,
                known ? dtypes[tensor.dtype].name : "unknown", dtypes[info.dtype].name);
  }
  if (tensor.rank != info.rank)
    return fail(MODEL(BAD_SHAPE), "%s has rank %d; expected %d", info.name,
                int(tensor.rank), int(info.rank));
  return MODEL(OK);
}

static int bind_symbol(Model *model, int64_t *symbols, const char *where, int symbol, int64_t value) {
  const SymbolInfo &info = symbol_table[symbol];
  if (value < 1 || value > kMostExtent)
    return fail(MODEL(BAD_SYMBOL), "%s has %s = %lld; expected 1 to %lld", where,
                info.name, (long long)value,
                (long long)(info.maximum ? info.maximum : kMostExtent));
  if (info.maximum && value > info.maximum)
    return fail(MODEL(BAD_SYMBOL), "%s has %s = %lld; the model takes %lld at most",
                where, info.name, (long long)value, (long long)info.maximum);
  if (symbols[symbol] && symbols[symbol] != value)
    return fail(MODEL(BAD_SHAPE), "%s has %s = %lld; elsewhere it is %lld", where,
                info.name, (long long)value, (long long)symbols[symbol]);
  symbols[symbol] = value;
  return MODEL(OK);
}

static int bind_extents(Model *model, int64_t *symbols, const Tensor &tensor,
                        const TensorInfo &info) {
  for (int axis = 0; axis < info.rank; ++axis) {
    const int symbol = dim_table[info.first_dim + axis].symbol;
    if (symbol < 0) continue;
    if (int status = bind_symbol(model, symbols, info.name, symbol, tensor.shape[axis]))
      return status;
  }
  return MODEL(OK);
}

static int resolve_symbols(Model *model, const Tensor *inputs, const int64_t *given,
                           const Tensor *outputs, int64_t *symbols) {
  for (int i = 0; i < kInputs; ++i) {
    if (int status = check_tensor(model, inputs[i], input_table[i])) return status;
    if (int status = bind_extents(model, symbols, inputs[i], input_table[i])) return status;
  }
  for (int i = 0; given && i < kSymbols; ++i) {
    if (!given[i]) continue;
    if (int status = bind_symbol(model, symbols, "the call", i, given[i])) return status;
  }
  for (int i = 0; outputs && i < kOutputs; ++i) {
    if (!outputs[i].rank || outputs[i].rank != output_table[i].rank) continue;
    for (int axis = 0; axis < outputs[i].rank; ++axis) {
      const int symbol = dim_table[output_table[i].first_dim + axis].symbol;
      if (symbol < 0 || symbols[symbol]) continue;
      if (int status = bind_symbol(model, symbols, output_table[i].name, symbol,
                                   outputs[i].shape[axis]))
        return status;
    }
  }
  for (int i = 0; i < kSymbols; ++i)
    if (!symbols[i])
      return fail(MODEL(BAD_SYMBOL),
                  "no input fixes the size %s; pass its value with the call", symbol_table[i].name);
  return MODEL(OK);
}

static int evaluate_sizes(Model *model, const int64_t *symbols) {
  if (model->resolved && !std::memcmp(symbols, model->symbols, sizeof(int64_t) * kSymbols))
    return MODEL(OK);
  model->resolved = false;
  wide values[kValues + 1], total = 0;
  evaluate(symbols, values);
  for (int i = 0; i < kValues; ++i) {
    if (values[i] < 0 || values[i] > kMostBytes)
      return fail(MODEL(BAD_SHAPE), "these sizes make %s %s", value_texts[i],
                  values[i] < 0 ? "negative" : "larger than any memory");
    model->values[i] = int64_t(values[i]);
  }
  for (int i = 0; i < kSlots; ++i) {
    model->slots[i] = int64_t(total);
    total += (values[slot_values[i]] + kAlignment - 1) / kAlignment * kAlignment;
    if (total > kMostBytes)
      return fail(MODEL(NO_MEMORY),
                  "the working memory for these sizes is larger than any memory");
  }
  model->needed_bytes = int64_t(total);
  std::memcpy(model->symbols, symbols, sizeof(int64_t) * kSymbols);
  model->resolved = true;
  return MODEL(OK);
}

static int check_extents(Model *model, const Tensor &tensor, const TensorInfo &info) {
  for (int axis = 0; axis < info.rank; ++axis) {
    const DimInfo &dim = dim_table[info.first_dim + axis];
    const int64_t expected = model->values[dim.value];
    if (tensor.shape[axis] == expected) continue;
    char number[32];
    std::snprintf(number, sizeof number, "%lld", (long long)expected);
    const bool plain = !std::strcmp(number, dim.text);
    return fail(MODEL(BAD_SHAPE), "axis %d of %s has %lld elements; expected %s%s%s",
                axis, info.name, (long long)tensor.shape[axis], number, plain ? "" : " = ",
                plain ? "" : dim.text);
  }
  return MODEL(OK);
}

static int64_t bytes_of(const Model *model, const TensorInfo &info) {
  wide bytes = dtypes[info.dtype].bytes;
  for (int axis = 0; axis < info.rank; ++axis) {
    bytes *= model->values[dim_table[info.first_dim + axis].value];
    if (bytes > kMostBytes) return -1;
  }
  return int64_t(bytes);
}

static int resolve(Model *model, const Tensor *inputs, int32_t n_inputs, const int64_t *given,
                   Tensor *outputs, int32_t n_outputs, bool read_outputs) {
  if ((kInputs && !inputs) || (kOutputs && !outputs))
    return fail(MODEL(BAD_ARGUMENT), "the array of %s is null",
                kInputs && !inputs ? "inputs" : "outputs");
  if (n_inputs != kInputs || n_outputs != kOutputs)
    return fail(MODEL(BAD_ARGUMENT),
                "found %d inputs and %d outputs; expected %d and %d", int(n_inputs),
                int(n_outputs), int(kInputs), int(kOutputs));
  int64_t symbols[kSymbols + 1] = {};
  if (int status = resolve_symbols(model, inputs, given, read_outputs ? outputs : nullptr, symbols))
    return status;
  if (int status = evaluate_sizes(model, symbols)) return status;
  for (int i = 0; i < kInputs; ++i)
    if (int status = check_extents(model, inputs[i], input_table[i])) return status;
  return MODEL(OK);
}

static int describe_output(Model *model, int i, Tensor *output) {
  const TensorInfo &info = output_table[i];
  output->bytes = bytes_of(model, info);
  if (output->bytes < 0)
    return fail(MODEL(NO_MEMORY), "%s is larger than any memory", info.name);
  output->dtype = info.dtype;
  output->rank = info.rank;
  for (int axis = 0; axis < info.rank; ++axis)
    output->shape[axis] = model->values[dim_table[info.first_dim + axis].value];
  return MODEL(OK);
}

// ----------------------------------------------------------------------------------------- run

static int check_memory(Model *model, const TensorInfo &info, const void *data, int64_t bytes,
                        int64_t needed) {
  if (!needed) return MODEL(OK);
  if (!data) return fail(MODEL(BAD_ARGUMENT), "%s has no data", info.name);
  if (needed < 0 || bytes < needed)
    return fail(MODEL(BAD_ARGUMENT), "%s has %lld bytes; expected %lld", info.name,
                (long long)bytes, (long long)needed);
  if (uintptr_t(data) % uintptr_t(dtypes[info.dtype].bytes))
    return fail(MODEL(BAD_ARGUMENT), "%s is not aligned to its elements", info.name);
  return MODEL(OK);
}

static bool overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
  return a_bytes && b_bytes && (const char *)a < (const char *)b + b_bytes &&
         (const char *)b < (const char *)a + a_bytes;
}

static int check_pointers(Model *model, const Tensor *inputs, Tensor *outputs, void **input_data,
                          void **output_data) {
  int64_t input_bytes[kInputs + 1], output_bytes[kOutputs + 1];
  for (int i = 0; i < kInputs; ++i) {
    input_data[i] = inputs[i].data;
    input_bytes[i] = bytes_of(model, input_table[i]);
    if (int status =
            check_memory(model, input_table[i], inputs[i].data, inputs[i].bytes, input_bytes[i]))
      return status;
  }
  for (int i = 0; i < kOutputs; ++i) {
    const int64_t capacity = outputs[i].bytes;
    if (int status = describe_output(model, i, &outputs[i])) return status;
    output_data[i] = outputs[i].data;
    output_bytes[i] = outputs[i].bytes;
    outputs[i].bytes = capacity;
    if (int status =
            check_memory(model, output_table[i], outputs[i].data, capacity, output_bytes[i]))
      return status;
    for (int j = 0; j < kInputs; ++j)
      if (overlap(output_data[i], output_bytes[i], input_data[j], input_bytes[j]))
        return fail(MODEL(BAD_ARGUMENT), "the memory of %s and %s overlaps",
                    output_table[i].name, input_table[j].name);
    for (int j = 0; j < i; ++j)
      if (overlap(output_data[i], output_bytes[i], output_data[j], output_bytes[j]))
        return fail(MODEL(BAD_ARGUMENT), "the memory of %s and %s overlaps",
                    output_table[i].name, output_table[j].name);
  }
  return MODEL(OK);
}

static int grow_arena(Model *model) {
  if (model->needed_bytes <= model->arena_bytes) return MODEL(OK);
  std::free(model->arena);
  model->arena_bytes = 0;
  model->arena = (char *)allocate(model->needed_bytes);
  if (!model->arena)
    return fail(MODEL(NO_MEMORY),
                "out of memory: these sizes need %lld bytes of working memory",
                (long long)model->needed_bytes);
  model->arena_bytes = model->needed_bytes;
  return MODEL(OK);
}

static int check_status(Model *model, const int64_t *status) {
  if (!status[0]) return MODEL(OK);
  const char *sentence = site_table[status[0] - 1];
  const char *mark = std::strstr(sentence, "{value}");
  if (!mark) return fail(MODEL(BAD_VALUE), "%s", sentence);
  return fail(MODEL(BAD_VALUE), "%.*s%lld%s", int(mark - sentence), sentence,
              (long long)status[1], mark + 7);
}

static int execute(Model *model, void *const *inputs, void *const *outputs) {
  int64_t status[2] = {0, 0};
  const Memory memory = {inputs,       outputs,      model->weights->base,   model->persist,
                         model->arena, model->slots, model->persist_offsets, status};
  const int threads = omp_get_max_threads();
  if (model->threads) omp_set_num_threads(model->threads);
  int result = MODEL(OK);
  try {
    call_program(model->program, memory, model->symbols);
  } catch (const std::bad_alloc &) {
    result = fail(MODEL(NO_MEMORY), "out of memory while running");
  } catch (const std::exception &error) {
    result = fail(MODEL(INTERNAL), "the program failed: %s", error.what());
  }
  if (model->threads) omp_set_num_threads(threads);
  return result ? result : check_status(model, status);
}

static int run(Model *model, const Tensor *inputs, int32_t n_inputs, const int64_t *symbols,
               Tensor *outputs, int32_t n_outputs) {
  if (int status = resolve(model, inputs, n_inputs, symbols, outputs, n_outputs, true))
    return status;
  void *input_data[kInputs + 1], *output_data[kOutputs + 1];
  if (int status = check_pointers(model, inputs, outputs, input_data, output_data)) return status;
  if (int status = grow_arena(model)) return status;
  return execute(model, input_data, output_data);
}

namespace {
struct Busy {  // holds an instance for one thread
  explicit Busy(Model *model) : model(model), mine(!model->busy.test_and_set()) {}
  ~Busy() {
    if (mine) model->busy.clear();
  }
  Model *model;
  bool mine;
};
}  // namespace

// --------------------------------------------------------------------------------- the interface

Model *MODEL(create)(const char *weights_path) {
  Weights *weights = map_weights(weights_path);
  if (!weights) return nullptr;
  ++weights->users;
  Model *model = instance(weights, 0);
  release(weights);
  return model;
}

Model *MODEL(clone)(Model *model) {
  if (!model) {
    fail_null();
    return nullptr;
  }
  return instance(model->weights, model->threads);
}

int MODEL(output_shapes)(Model *model, const Tensor *inputs, int32_t n_inputs,
                         const int64_t *symbols, Tensor *outputs, int32_t n_outputs) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  if (int status = resolve(model, inputs, n_inputs, symbols, outputs, n_outputs, false))
    return status;
  for (int i = 0; i < kOutputs; ++i)
    if (int status = describe_output(model, i, &outputs[i])) return status;
  return MODEL(OK);
}

int MODEL(run)(Model *model, const Tensor *inputs, int32_t n_inputs, const int64_t *symbols,
               Tensor *outputs, int32_t n_outputs) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  return run(model, inputs, n_inputs, symbols, outputs, n_outputs);
}

int MODEL(reset)(Model *model) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  initialize_state(model);
  return MODEL(OK);
}

int MODEL(set_threads)(Model *model, int32_t threads) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  if (threads < 0)
    return fail(MODEL(BAD_ARGUMENT), "found %d threads; expected 0 or more",
                int(threads));
  model->threads = threads;
  return MODEL(OK);
}

int64_t MODEL(arena_bytes)(const Model *model) { return model ? model->arena_bytes : 0; }

const char *MODEL(last_error)(void) { return error_text; }

void MODEL(destroy)(Model *model) {
  if (!model) return;
  if (model->program) stop_program(model->program);
  std::free(model->persist);
  std::free(model->arena);
  release(model->weights);
  delete model;
}
