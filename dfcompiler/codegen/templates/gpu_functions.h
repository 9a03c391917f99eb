// The functions of the C interface that only a model on a GPU has.
#pragma once

#include "sizes.h"

int MODEL(last_status)(void) { return error_status; }

int MODEL(set_graphs)(Model *model, int32_t wanted) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  if (wanted && kMeasured)
    return fail(MODEL(BAD_ARGUMENT),
                "the model was compiled to measure its operators; such calls are not kept as CUDA "
                "graphs");
  const OnDevice here;
  model->device.graphs.wanted = wanted != 0;
  if (!wanted) forget_graphs(&model->device.graphs);
  return MODEL(OK);
}

static int synchronize(Model *model) {
  int64_t bad_index[2] = {0, 0};
  if (int status = finish(&model->device, bad_index)) return status;
  return check_status(bad_index);
}

int MODEL(set_stream)(Model *model, void *stream) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  if (cudaStream_t(stream) == cudaStreamPerThread)
    return fail(MODEL(BAD_ARGUMENT),
                "cudaStreamPerThread is another stream in each thread; expected one that was created, "
                "or cudaStreamLegacy");
  const OnDevice here;
  const int status = model->device.pending ? synchronize(model) : MODEL(OK);
  model->device.given = cudaStream_t(stream);
  return status;
}

void *MODEL(stream)(Model *model) {
  if (!model) return nullptr;
  return model->device.given ? model->device.given : model->device.own;
}

int MODEL(synchronize)(Model *model) {
  if (!model) return fail_null();
  const Busy busy(model);
  if (!busy.mine) return fail_busy();
  const OnDevice here;
  return synchronize(model);
}

void *MODEL(device_allocate)(int64_t bytes) {
  const OnDevice here;
  char *memory = allocate(bytes > 0 ? bytes : 1);
  if (!memory) no_memory("a tensor needs", bytes);
  return memory;
}

void MODEL(device_free)(void *memory) {
  const OnDevice here;
  give_back((char *)memory);
}

int MODEL(device_copy)(void *to, const void *from, int64_t bytes) {
  const OnDevice here;
  const cudaError_t code = copy_now(to, from, bytes);
  return code == cudaSuccess ? MODEL(OK) : fail_gpu(code, "to copy a tensor");
}
