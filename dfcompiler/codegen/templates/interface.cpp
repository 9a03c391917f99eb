// The C interface over the generated program. Everything that depends on the model is in tables.h;
// this file and its headers are the same for every model.
#include "sizes.h"

static int check_memory(const TensorInfo &info, const void *data, int64_t bytes,
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
            check_memory(input_table[i], inputs[i].data, inputs[i].bytes, input_bytes[i]))
      return status;
  }
  for (int i = 0; i < kOutputs; ++i) {
    const int64_t capacity = outputs[i].bytes;
    if (int status = describe_output(model, i, &outputs[i])) return status;
    output_data[i] = outputs[i].data;
    output_bytes[i] = outputs[i].bytes;
    outputs[i].bytes = capacity;
    if (int status =
            check_memory(output_table[i], outputs[i].data, capacity, output_bytes[i]))
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

static int check_status(const int64_t *status) {
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
  return result ? result : check_status(status);
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
