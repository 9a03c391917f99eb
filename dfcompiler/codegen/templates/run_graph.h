// Calls kept as CUDA graphs: the first call with some sizes and pointers runs as it is, the second is
// captured, and those after it replay what was captured. Loops of a call that is not captured have
// graphs of their own, from the first call on.
#pragma once

#include "cuda/loops.h"
#include "gpu.h"

static const int kGraphs = 8;  // of an instance; the one that was not used for longest goes

struct RunKey {
  void *inputs[kInputs + 1], *outputs[kOutputs + 1];
  const char *arena;
  int64_t symbols[kSymbols + 1];
};

struct RunGraph {
  RunKey key;
  int64_t used;  // number of the call that used it last; 0: this place is free
  bool is_ready;  // everything of the call has run: kernels are loaded, plans made
  cudaGraphExec_t executable;
  std::vector<cudaGraphExec_t> loops;
};

struct RunGraphs {
  bool wanted;
  int64_t calls;
  RunGraph kept[kGraphs];
};

static void forget(RunGraph *graph) {
  if (graph->executable) cudaGraphExecDestroy(graph->executable);
  dfc::cuda::forget_loops(&graph->loops);
  *graph = RunGraph{};
}

static void forget_graphs(RunGraphs *graphs) {
  for (RunGraph &graph : graphs->kept) forget(&graph);
}

static RunKey run_key(const Memory &memory, const int64_t *symbols) {
  RunKey key;
  std::memset((void *)&key, 0, sizeof key);  // keys are compared as bytes
  std::memcpy(key.inputs, memory.inputs, sizeof(void *) * kInputs);
  std::memcpy(key.outputs, memory.outputs, sizeof(void *) * kOutputs);
  key.arena = memory.arena;
  std::memcpy(key.symbols, symbols, sizeof(int64_t) * kSymbols);
  return key;
}

// The graph of a call; a place for it where there is none yet.
static RunGraph *find_graph(RunGraphs *graphs, const RunKey &key) {
  RunGraph *oldest = &graphs->kept[0];
  for (RunGraph &graph : graphs->kept) {
    if (graph.used && !std::memcmp(&graph.key, &key, sizeof key)) {
      graph.used = ++graphs->calls;
      return &graph;
    }
    if (graph.used < oldest->used) oldest = &graph;
  }
  forget(oldest);
  oldest->key = key;
  oldest->used = ++graphs->calls;
  return oldest;
}

static int fail_capture(const char *reason) {
  char kept[256];  // it may lie in the sentence that is written
  std::snprintf(kept, sizeof kept, "%s", reason);
  return fail(MODEL(DEVICE),
              "the call cannot be captured as a CUDA graph: %s; run the model without graphs", kept);
}

// Captures a call of the program, which enqueues to `stream`.
static int capture(RunGraph *graph, cudaStream_t stream, void *program, const Memory &memory,
                   const int64_t *symbols) {
  cudaError_t code = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  if (code != cudaSuccess) return fail_capture(cudaGetErrorString(code));
  const int status = call_checked(program, memory, symbols);
  cudaGraph_t captured = nullptr;
  code = cudaStreamEndCapture(stream, &captured);
  if (!status && code == cudaSuccess)
    code = cudaGraphInstantiate(&graph->executable, captured, 0);
  if (captured) cudaGraphDestroy(captured);
  if (status) return fail_capture(error_text);
  return code == cudaSuccess ? MODEL(OK) : fail_capture(cudaGetErrorString(code));
}
