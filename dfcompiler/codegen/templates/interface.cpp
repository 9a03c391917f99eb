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
                          void **output_data, int64_t *input_bytes, int64_t *output_bytes) {
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
  give_back(model->arena);
  model->arena_bytes = 0;
  model->arena = allocate(model->needed_bytes);
  if (!model->arena)
    return no_memory("the working memory for these sizes needs", model->needed_bytes);
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

static int run(Model *model, const Tensor *inputs, int32_t n_inputs, const int64_t *symbols,
               Tensor *outputs, int32_t n_outputs) {
  if (int status = resolve(model, inputs, n_inputs, symbols, outputs, n_outputs, true))
    return status;
  void *input_data[kInputs + 1], *output_data[kOutputs + 1];
  int64_t input_bytes[kInputs + 1], output_bytes[kOutputs + 1], bad_index[2] = {0, 0};
  if (int status = check_pointers(model, inputs, outputs, input_data, output_data, input_bytes,
                                  output_bytes))
    return status;
  if (int status = grow_arena(model)) return status;
  const Memory memory = {input_data,    output_data,  model->weights->base,   model->persist,
                         model->arena,  model->slots, model->persist_offsets, bad_index};
  if (int status = call_on_device(&model->device, model->program, memory, model->symbols,
                                  input_bytes, output_bytes))
    return status;
  return check_status(bad_index);
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
  const OnDevice here;
  if (may_run()) return nullptr;
  Weights *weights = open_weights(weights_path);
  if (!weights) return nullptr;
  ++weights->users;
  Model *model = instance(weights);
  release(weights);
  return model;
}

Model *MODEL(clone)(Model *model) {
  if (!model) {
    fail_null();
    return nullptr;
  }
  const OnDevice here;
  Model *other = instance(model->weights);
  if (other) inherit(&other->device, model->device);
  return other;
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
  const OnDevice here;
  return run(model, inputs, n_inputs, symbols, outputs, n_outputs);
}

int MODEL(reset)(Model *model) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  const OnDevice here;
  return initialize_state(model);
}

int MODEL(set_threads)(Model *model, int32_t threads) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  if (threads < 0)
    return fail(MODEL(BAD_ARGUMENT), "found %d threads; expected 0 or more",
                int(threads));
  return set_threads(&model->device, threads);
}

int64_t MODEL(arena_bytes)(const Model *model) { return model ? model->arena_bytes : 0; }

const char *MODEL(last_error)(void) { return error_text; }

void MODEL(destroy)(Model *model) {
  if (!model) return;
  const OnDevice here;
  if (model->program) stop_program(model->program);
  give_back(model->persist);
  give_back(model->arena);
  close_device(&model->device);
  release(model->weights);
  delete model;
}

#if RUNS_ON_GPU
#include "gpu_functions.h"
#endif
