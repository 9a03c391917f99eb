// Captures and graphs behind streams.h: what is captured does not run, a launch runs it.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "engine.h"
#include "streams.h"

#define EMULATED extern "C" __attribute__((visibility("default")))

struct CUgraphNode_st {
  emulation::Kind kind;
  emulation::Work work;
  std::vector<cudaGraphNode_t> after;
  cudaGraphConditionalHandle condition = 0;  // of a WHILE node, which has a body
  std::unique_ptr<CUgraph_st> body;
};
struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
  CUgraph_st* root = this;
  std::map<cudaGraphConditionalHandle, unsigned> defaults;
};
struct CUgraphExec_st {
  std::unique_ptr<CUgraph_st> graph;
};

namespace emulation {

namespace {

constexpr long MOST_ITERATIONS = 100000;

struct Capture {
  cudaGraph_t graph;
  bool is_own;  // made by the capture
  cudaStreamCaptureMode mode;
  std::vector<cudaGraphNode_t> last;
  cudaError_t error = cudaSuccess;
};

std::map<cudaStream_t, Capture> captures;
std::map<cudaGraphConditionalHandle, unsigned> conditions;
std::set<const void*> loaded;
cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
cudaGraphConditionalHandle handles = 0;
long waits = 0, graph_launches = 0, captured_kernels = 0, unloaded_kernels = 0;
bool is_arriving = false;

Capture* capture_of(cudaStream_t stream) {
  const auto found = captures.find(stream);
  return found == captures.end() ? nullptr : &found->second;
}

cudaGraphNode_t add_node(cudaGraph_t graph, const cudaGraphNode_t* after, std::size_t count) {
  graph->nodes.push_back(std::make_unique<CUgraphNode_st>());
  graph->nodes.back()->after.assign(after, after + count);
  return graph->nodes.back().get();
}

bool is_default(cudaStream_t stream) { return stream == nullptr || stream == cudaStreamLegacy; }

bool is_chain(const CUgraph_st& graph) {
  cudaGraphNode_t before = nullptr;
  for (const auto& node : graph.nodes) {
    const std::vector<cudaGraphNode_t> expected(before ? 1 : 0, before);
    if (node->after != expected) return false;
    before = node.get();
  }
  return true;
}

// What the body of a conditional node must not hold.
bool is_allowed(const CUgraph_st& graph, bool is_body) {
  for (const auto& node : graph.nodes) {
    if (is_body && node->kind.is_pageable) return false;
    if (node->body && !is_allowed(*node->body, true)) return false;
  }
  return is_chain(graph);
}

cudaError_t run(const CUgraph_st& graph) {
  for (const auto& node : graph.nodes) {
    if (!node->body) {
      if (const cudaError_t error = node->work()) return error;
      continue;
    }
    for (long i = 0; conditions[node->condition]; ++i) {
      if (i == MOST_ITERATIONS) {
        set_message("a WHILE node of a graph does not end");
        return cudaErrorLaunchTimeout;
      }
      if (const cudaError_t error = run(*node->body)) return error;
    }
  }
  return cudaSuccess;
}

// A call that no capture may meet: it ends those that are not relaxed.
cudaError_t refuse(bool also_relaxed) {
  if (!also_relaxed && thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  for (auto& [stream, capture] : captures)
    if (also_relaxed || capture.mode != cudaStreamCaptureModeRelaxed)
      error = capture.error = cudaErrorStreamCaptureUnsupported;
  return error;
}

}  // namespace

cudaError_t enqueue(cudaStream_t stream, Kind kind, Work work) {
  Capture* capture = capture_of(stream);
  if (!capture) {
    if (kind.kernel) loaded.insert(kind.kernel);
    if (!kind.kernel || !is_arriving || is_default(stream)) return work();
    set_message("a kernel runs while a copy of pageable memory is on its way on the default stream");
    return cudaErrorLaunchFailure;
  }
  captured_kernels += kind.kernel != nullptr;
  unloaded_kernels += kind.kernel && !loaded.count(kind.kernel);
  const cudaGraphNode_t node =
      add_node(capture->graph, capture->last.data(), capture->last.size());
  node->kind = kind;
  node->work = std::move(work);
  capture->last = {node};
  return cudaSuccess;
}

cudaError_t wait_for(cudaStream_t stream) {
  ++waits;
  if (is_default(stream)) is_arriving = false;
  Capture* capture = capture_of(stream);
  if (capture) capture->error = cudaErrorStreamCaptureUnsupported;
  return capture ? capture->error : cudaSuccess;
}

cudaError_t wait_for_device() {
  ++waits;
  is_arriving = false;
  return refuse(true);
}

cudaError_t may_allocate() { return refuse(false); }

void leave_arriving() { is_arriving = true; }

void set_condition(cudaGraphConditionalHandle handle, unsigned value) { conditions[handle] = value; }

}  // namespace emulation

using namespace emulation;

EMULATED long emulation_graph_launches() { return graph_launches; }
EMULATED long emulation_waits() { return waits; }
EMULATED long emulation_captured_kernels() { return captured_kernels; }
EMULATED long emulation_unloaded_kernels() { return unloaded_kernels; }

EMULATED cudaError_t CUDARTAPI cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  *mode = std::exchange(thread_mode, *mode);
  return cudaSuccess;
}

// -------------------------------------------------------------------------------------- captures

EMULATED cudaError_t CUDARTAPI cudaStreamIsCapturing(cudaStream_t stream,
                                                     cudaStreamCaptureStatus* status) {
  *status = capture_of(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamBeginCaptureToGraph(
    cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* after, const cudaGraphEdgeData*,
    std::size_t count, cudaStreamCaptureMode mode) {
  if (is_default(stream) || capture_of(stream)) return cudaErrorStreamCaptureUnsupported;
  captures[stream] = {graph, false, mode, {after, after + count}};
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t stream,
                                                      cudaStreamCaptureMode mode) {
  auto graph = std::make_unique<CUgraph_st>();
  const cudaError_t error =
      cudaStreamBeginCaptureToGraph(stream, graph.get(), nullptr, nullptr, 0, mode);
  if (error != cudaSuccess) return error;
  captures[stream].is_own = true;
  graph.release();
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const auto found = captures.find(stream);
  if (found == captures.end()) return cudaErrorIllegalState;
  const Capture capture = found->second;
  captures.erase(found);
  if (capture.error == cudaSuccess) *graph = capture.graph;
  else if (capture.is_own) delete capture.graph;
  return capture.error;
}
EMULATED cudaError_t CUDARTAPI cudaStreamGetCaptureInfo(
    cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
    const cudaGraphNode_t** last, const cudaGraphEdgeData** edges, std::size_t* count) {
  if (const cudaError_t error = cudaStreamIsCapturing(stream, status)) return error;
  const Capture* capture = capture_of(stream);
  if (!capture) return cudaSuccess;
  if (id) *id = 1;
  *graph = capture->graph;
  *last = capture->last.data();
  *edges = nullptr;
  *count = capture->last.size();
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamUpdateCaptureDependencies(
    cudaStream_t stream, cudaGraphNode_t* nodes, const cudaGraphEdgeData*, std::size_t count,
    unsigned flags) {
  Capture* capture = capture_of(stream);
  if (!capture) return cudaErrorIllegalState;
  if (flags == cudaStreamSetCaptureDependencies) capture->last.clear();
  capture->last.insert(capture->last.end(), nodes, nodes + count);
  return cudaSuccess;
}

// ---------------------------------------------------------------------------------------- graphs

EMULATED cudaError_t CUDARTAPI cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle* handle,
                                                                cudaGraph_t graph, unsigned initial,
                                                                unsigned flags) {
  *handle = ++handles;
  if (flags & cudaGraphCondAssignDefault) graph->root->defaults[*handle] = initial;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                                const cudaGraphNode_t* after,
                                                const cudaGraphEdgeData*, std::size_t count,
                                                cudaGraphNodeParams* parameters) {
  static cudaGraph_t body;
  cudaConditionalNodeParams& wanted = parameters->conditional;
  if (parameters->type != cudaGraphNodeTypeConditional || wanted.type != cudaGraphCondTypeWhile ||
      wanted.size != 1)
    return cudaErrorNotSupported;
  *node = add_node(graph, after, count);
  (*node)->condition = wanted.handle;
  (*node)->body = std::make_unique<CUgraph_st>();
  (*node)->body->root = graph->root;
  body = (*node)->body.get();
  wanted.phGraph_out = &body;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                                    unsigned long long) {
  if (!is_allowed(*graph, false)) return cudaErrorInvalidValue;
  // Its own from now on: nothing of ours uses a graph once it is instantiated.
  auto own = std::make_unique<CUgraph_st>();
  std::swap(own->nodes, graph->nodes);
  own->defaults = graph->defaults;
  *executable = new CUgraphExec_st{std::move(own)};
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (capture_of(stream)) return cudaErrorStreamCaptureUnsupported;
  ++graph_launches;
  for (const auto& [handle, value] : executable->graph->defaults) conditions[handle] = value;
  return run(*executable->graph);
}
EMULATED cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
