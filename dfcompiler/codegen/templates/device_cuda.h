// A GPU as the device: weights are uploaded once for all instances, tensors may lie on the host or
// on the GPU, a call is enqueued on a stream.
#pragma once

#include "cuda/profile.h"
#include "cuda/workspace.h"
#include "gpu.h"

static const int64_t kAlignment = 256;

static int no_memory(const char *what, int64_t bytes) {
  size_t free_bytes = 0, all_bytes = 0;
  cudaMemGetInfo(&free_bytes, &all_bytes);
  return fail(MODEL(NO_MEMORY), "out of device memory: %s %lld bytes; %lld of %lld are free", what,
              (long long)bytes, (long long)free_bytes, (long long)all_bytes);
}

// What the program recorded: the first launch that failed.
static int check_launches() {
  const dfc::cuda::Failure &found = dfc::cuda::failure();
  if (found.code == cudaSuccess) return MODEL(OK);
  const int name = int(std::strcspn(found.step, "("));
  const int status =
      found.code == cudaErrorMemoryAllocation ? MODEL(NO_MEMORY) : MODEL(DEVICE);
  return fail(status, "the launch of %.*s failed: %s%s%s", name < 300 ? name : 300, found.step,
              cudaGetErrorString(found.code), found.detail[0] ? "; " : "", found.detail);
}

// Calls the program, which enqueues its kernels.
static int call_checked(void *program, const Memory &memory, const int64_t *symbols) {
  dfc::cuda::clear_failure();
  cudaGetLastError();
  try {
    call_program(program, memory, symbols);
  } catch (const std::bad_alloc &) {
    return fail(MODEL(NO_MEMORY), "out of memory while running");
  } catch (const std::exception &error) {
    return fail(MODEL(INTERNAL), "the program failed: %s", error.what());
  }
  return check_launches();
}

#include "run_graph.h"

struct Device {
  cudaStream_t own, given;  // a call goes to `given` if the caller gave one
  int64_t *bad_index;       // written by kernels, memory of the host
  int64_t *bad_index_there; // the same memory as kernels see it
  char *staging;            // tensors of the host, for one call
  int64_t staging_bytes;
  bool pending;             // calls were enqueued and not waited for
  RunGraphs graphs;
  dfc::cuda::Profile profile;  // of an artifact that measures
  dfc::cuda::Loops loops;
};

static int open_device(Device *device) {
  cudaError_t code = cudaStreamCreateWithFlags(&device->own, cudaStreamNonBlocking);
  if (code == cudaSuccess)
    code = cudaHostAlloc((void **)&device->bad_index, 2 * sizeof(int64_t), cudaHostAllocMapped);
  if (code == cudaSuccess)
    code = cudaHostGetDevicePointer((void **)&device->bad_index_there, device->bad_index, 0);
  if (code != cudaSuccess) return fail_gpu(code, "to start");
  device->bad_index[0] = device->bad_index[1] = 0;
  dfc::cuda::clear_failure();
  cudaGetLastError();
  return MODEL(OK);
}

static void close_device(Device *device) {
  if (device->own) cudaStreamSynchronize(device->own);
  forget_graphs(&device->graphs);
  dfc::cuda::close_loops(&device->loops);
  if (device->staging) cudaFree(device->staging);
  if (device->bad_index) cudaFreeHost(device->bad_index);
  if (!device->own) return;
  dfc::cuda::release_workspace(device->own);
  cudaStreamDestroy(device->own);
}

static char *allocate(int64_t bytes) {
  void *memory = nullptr;
  if (cudaMalloc(&memory, size_t(bytes)) == cudaSuccess) return (char *)memory;
  cudaGetLastError();
  return nullptr;
}

static void give_back(char *memory) {
  if (memory) cudaFree(memory);
}

static int program_failed() {
  const int status = check_launches();
  return status ? status : fail(MODEL(DEVICE), "the program does not start on this GPU");
}

// Fills memory of the device from other memory of it, or with zeros.
static int set_memory(char *to, const char *from, int64_t bytes) {
  cudaError_t code = cudaDeviceSynchronize();
  if (code == cudaSuccess)
    code = from ? cudaMemcpy(to, from, size_t(bytes), cudaMemcpyDeviceToDevice)
                : cudaMemset(to, 0, size_t(bytes));
  if (code == cudaSuccess) code = cudaDeviceSynchronize();
  return code == cudaSuccess ? MODEL(OK) : fail_gpu(code, "to set the persistent state");
}

// Returns when the bytes are there. A copy of pageable memory may return while the last of them are
// on their way, and no stream of ours waits for the default one, on which they are.
static cudaError_t copy_now(void *to, const void *from, int64_t bytes) {
  const cudaError_t code = cudaMemcpy(to, from, size_t(bytes), cudaMemcpyDefault);
  return code == cudaSuccess ? cudaStreamSynchronize(cudaStreamLegacy) : code;
}

// Uploads the weights; the mapping of their file is not needed afterwards.
static char *take_weights(char *mapped, int64_t bytes) {
  char *base = allocate(bytes);
  const cudaError_t code = base ? copy_now(base, mapped, bytes) : cudaSuccess;
  munmap(mapped, size_t(bytes));
  if (!base) {
    no_memory("the weights need", bytes);
  } else if (code != cudaSuccess) {
    fail_gpu(code, "to take the weights");
    give_back(base);
    base = nullptr;
  }
  return base;
}

static void drop_weights(char *base, int64_t) { give_back(base); }

static void inherit(Device *device, const Device &from) {
  device->given = from.given;
  device->graphs.wanted = from.graphs.wanted;
}

static int set_threads(Device *, int32_t threads) {
  if (!threads) return MODEL(OK);
  return fail(MODEL(BAD_ARGUMENT), "the model runs on a GPU; there are no threads to set");
}

// ------------------------------------------------------------------------------------- the call

static int find_side(const TensorInfo &info, const void *data, bool *on_gpu) {
  cudaPointerAttributes facts;
  const cudaError_t code = cudaPointerGetAttributes(&facts, data);
  if (code != cudaSuccess) return fail_gpu(code, "to say where a tensor lies");
  *on_gpu = facts.type == cudaMemoryTypeDevice || facts.type == cudaMemoryTypeManaged;
  if (facts.type == cudaMemoryTypeDevice && facts.device != kDevice)
    return fail(MODEL(BAD_ARGUMENT), "%s lies on GPU %d; the model runs on GPU %d", info.name,
                facts.device, kDevice);
  return MODEL(OK);
}

// Where tensors of the host lie on the GPU during a call.
struct Staged {
  void *data[kInputs + kOutputs + 1];
  bool on_gpu[kInputs + kOutputs + 1];
  bool any;  // lies on the host
};

static int stage(Device *device, void *const *data, const int64_t *const *bytes, Staged *staged) {
  int64_t offsets[kInputs + kOutputs + 1], total = 0;
  for (int i = 0; i < kInputs + kOutputs; ++i) {
    const bool is_input = i < kInputs;
    const TensorInfo &info = is_input ? input_table[i] : output_table[i - kInputs];
    staged->data[i] = data[i];
    staged->on_gpu[i] = true;
    if (*bytes[i])
      if (int status = find_side(info, data[i], &staged->on_gpu[i])) return status;
    offsets[i] = total;
    if (staged->on_gpu[i]) continue;
    staged->any = true;
    total += (*bytes[i] + kAlignment - 1) / kAlignment * kAlignment;
  }
  if (total > device->staging_bytes) {
    give_back(device->staging);
    device->staging_bytes = 0;
    device->staging = allocate(total);
    if (!device->staging) return no_memory("the tensors of the host need", total);
    device->staging_bytes = total;
  }
  for (int i = 0; i < kInputs + kOutputs; ++i)
    if (!staged->on_gpu[i]) staged->data[i] = device->staging + offsets[i];
  return MODEL(OK);
}

static int enqueue(Device *device, void *program, const Memory &memory, const int64_t *symbols) {
  const cudaStream_t stream = device->given ? device->given : device->own;
  RunGraph *graph = find_graph(&device->graphs, run_key(memory, symbols));
  device->loops.kept = &graph->loops;
  device->loops.skipped = false;
  dfc::cuda::loops_of_call() = &device->loops;
  if (!graph->is_ready || !device->graphs.wanted) {
    use_stream(program, stream);
    const int status = call_checked(program, memory, symbols);
    graph->is_ready = graph->is_ready || (!status && !device->loops.skipped);
    return status;
  }
  if (!graph->executable) {
    use_stream(program, device->own);  // the default stream cannot be captured
    if (int status = capture(graph, device->own, program, memory, symbols)) {
      forget(graph);
      return status;
    }
  }
  const cudaError_t code = cudaGraphLaunch(graph->executable, stream);
  return code == cudaSuccess ? MODEL(OK) : fail_gpu(code, "to launch the captured call");
}

// Waits for all calls of the instance; `bad_index` is what their kernels reported.
static int finish(Device *device, int64_t *bad_index) {
  const cudaError_t code =
      cudaStreamSynchronize(device->given ? device->given : device->own);
  device->pending = false;
  std::memcpy(bad_index, device->bad_index, 2 * sizeof(int64_t));
  device->bad_index[0] = device->bad_index[1] = 0;
  return code == cudaSuccess ? MODEL(OK) : fail_gpu(code, "while it ran the model");
}

// The times of the operators, into the last output of a call that is done.
static int give_times(const Device &device, void *output) {
  double seconds[kMeasured + 1] = {};
  cudaError_t code = device.profile.read(seconds, kMeasured);
  if (code == cudaSuccess) code = copy_now(output, seconds, sizeof seconds);
  return code == cudaSuccess ? MODEL(OK) : fail_gpu(code, "to say how long operators took");
}

// Calls the program; memory.status tells afterwards which index was bad. A call on a stream that
// the caller gave, whose tensors all lie on the GPU, is not waited for.
static int call_on_device(Device *device, void *program, Memory memory, const int64_t *symbols,
                          const int64_t *input_bytes, const int64_t *output_bytes) {
  void *data[kInputs + kOutputs + 1];
  const int64_t *bytes[kInputs + kOutputs + 1];
  for (int i = 0; i < kInputs; ++i) data[i] = memory.inputs[i], bytes[i] = &input_bytes[i];
  for (int i = 0; i < kOutputs; ++i)
    data[kInputs + i] = memory.outputs[i], bytes[kInputs + i] = &output_bytes[i];
  Staged staged = {};
  if (int status = stage(device, data, bytes, &staged)) return status;
  const cudaStream_t stream = device->given ? device->given : device->own;
  cudaError_t code = cudaSuccess;
  for (int i = 0; i < kInputs && code == cudaSuccess; ++i)
    if (!staged.on_gpu[i])
      code = cudaMemcpyAsync(staged.data[i], data[i], size_t(*bytes[i]), cudaMemcpyHostToDevice,
                             stream);
  if (code != cudaSuccess) return fail_gpu(code, "to take the inputs");
  int64_t *const bad_index = memory.status;
  memory.inputs = staged.data;
  memory.outputs = staged.data + kInputs;
  memory.status = device->bad_index_there;
  device->pending = true;
  dfc::cuda::current_profile() = &device->profile;
  if (int status = enqueue(device, program, memory, symbols)) {
    cudaStreamSynchronize(stream);  // the copies of the inputs, and what was launched before
    device->bad_index[0] = device->bad_index[1] = 0;
    return status;
  }
  for (int i = kInputs; i < kInputs + kOutputs && code == cudaSuccess; ++i)
    if (!staged.on_gpu[i])
      code = cudaMemcpyAsync(data[i], staged.data[i], size_t(*bytes[i]), cudaMemcpyDeviceToHost,
                             stream);
  if (code != cudaSuccess) return fail_gpu(code, "to give the outputs");
  if (device->given && !staged.any && !kMeasured) return MODEL(OK);
  const int status = finish(device, bad_index);
  return status || !kMeasured ? status : give_times(*device, data[kInputs + kOutputs - 1]);
}
