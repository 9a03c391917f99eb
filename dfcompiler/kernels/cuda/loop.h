// A loop of the program that the GPU runs on its own: its body is a graph, the condition a value that
// a kernel sets. The host looks at nothing between two iterations.
//
//   begin_loop ──▶ next_pass ──▶ the program's body, enqueued once for each pass
//
//   the call is captured     pass 1 goes into the body of a WHILE node of the call's graph
//   a graph is kept          no pass: the graph is launched
//   neither                  pass 1 runs iteration `start` as it is, which loads kernels and makes
//                            plans; pass 2 is captured, and the graph runs the other iterations
//
//   graph:  test ──▶ while (condition) { body ──▶ advance }         test, advance: `step_loop`
//
// How far the loop is lies in device memory. Graphs are kept for calls with equal sizes and pointers.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/check.h"
#include "cuda/loops.h"

#if CUDART_VERSION < 12040
#error "a program with a loop needs CUDA 12.4 or newer: older ones have no conditional nodes"
#endif

namespace dfc::cuda {

template <bool has_flag>
cudaError_t step_loop(cudaStream_t stream, LoopStep step);

template <bool has_flag>
cudaError_t begin_loop(cudaStream_t stream, std::size_t number, std::int64_t start,
                       std::int64_t stop, const bool* ended) {
  Loops& loops = *loops_of_call();
  loops.made = Loops::Pass::none;
  loops.number = number;
  loops.start = start;
  loops.stop = stop;
  loops.ended = ended;
  loops.step = step_loop<has_flag>;
  loops.outside = stream;
  if (loops.kept->size() <= number) loops.kept->resize(number + 1);
  return open_loops(&loops);
}

// Adds the WHILE node to what `loops.outer` captures; the body is captured from `stream` from now on.
inline cudaError_t open_body(Loops& loops, cudaStream_t& stream) {
  cudaStreamCaptureStatus status;
  cudaGraph_t graph = nullptr;
  const cudaGraphNode_t* before = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  std::size_t count = 0;
  const auto find = [&] {
#if CUDART_VERSION >= 13000
    return cudaStreamGetCaptureInfo(loops.outer, &status, nullptr, &graph, &before, &edges, &count);
#else
    return cudaStreamGetCaptureInfo_v3(loops.outer, &status, nullptr, &graph, &before, &edges,
                                       &count);
#endif
  };
  cudaError_t error = find();
  if (error == cudaSuccess)
    error = cudaGraphConditionalHandleCreate(&loops.condition, graph, 0,
                                             cudaGraphCondAssignDefault);
  if (error == cudaSuccess)
    error = loops.step(loops.outer, {loops.next, 0, true, loops.stop, loops.ended, loops.condition,
                                     true});
  if (error == cudaSuccess) error = find();
  if (error != cudaSuccess) return error;
  cudaGraphNodeParams node = {};
  node.type = cudaGraphNodeTypeConditional;
  node.conditional.handle = loops.condition;
  node.conditional.type = cudaGraphCondTypeWhile;
  node.conditional.size = 1;
  cudaGraphNode_t made = nullptr;
#if CUDART_VERSION >= 13000
  error = cudaGraphAddNode(&made, graph, before, edges, count, &node);
  if (error == cudaSuccess)
    error = cudaStreamUpdateCaptureDependencies(loops.outer, &made, nullptr, 1,
                                                cudaStreamSetCaptureDependencies);
#else
  error = cudaGraphAddNode_v2(&made, graph, before, edges, count, &node);
  if (error == cudaSuccess)
    error = cudaStreamUpdateCaptureDependencies_v2(loops.outer, &made, nullptr, 1,
                                                   cudaStreamSetCaptureDependencies);
#endif
  if (error == cudaSuccess)
    error = cudaStreamBeginCaptureToGraph(loops.body, node.conditional.phGraph_out[0], nullptr,
                                          nullptr, 0, cudaStreamCaptureModeRelaxed);
  if (error != cudaSuccess) return error;
  stream = loops.body;
  loops.made = Loops::Pass::captured;
  return cudaSuccess;
}

// Ends the graph of a loop that is not part of a call's graph, launches and keeps it.
inline cudaError_t launch_captured(Loops& loops, cudaError_t error) {
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(loops.around, &graph);
  cudaGraphExec_t executable = nullptr;
  if (error == cudaSuccess) error = ended;
  if (error == cudaSuccess && failure().code == cudaSuccess)
    error = cudaGraphInstantiate(&executable, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  if (!executable) return error;
  (*loops.kept)[loops.number] = executable;
  return cudaGraphLaunch(executable, loops.outside);
}

inline cudaError_t close_body(Loops& loops, cudaStream_t& stream) {
  cudaError_t error = loops.step(loops.body, {loops.next, 1, true, loops.stop, loops.ended,
                                              loops.condition, true});
  cudaGraph_t body = nullptr;  // the node's own
  const cudaError_t ended = cudaStreamEndCapture(loops.body, &body);
  if (error == cudaSuccess) error = ended;
  stream = loops.outside;
  return loops.outer == loops.outside ? error : launch_captured(loops, error);
}

// The first pass of a loop without a graph: none if the loop is over before it begins.
inline cudaError_t begin_direct(Loops& loops, bool* again) {
  bool over = false;
  if (loops.ended) {
    cudaError_t error = cudaMemcpyAsync(&over, loops.ended, sizeof over, cudaMemcpyDeviceToHost,
                                        loops.outside);
    if (error == cudaSuccess) error = cudaStreamSynchronize(loops.outside);
    if (error != cudaSuccess) return error;
  }
  loops.made = Loops::Pass::direct;
  loops.skipped = loops.skipped || over;
  *again = !over;
  return cudaSuccess;
}

inline cudaError_t first_pass(Loops& loops, cudaStream_t& stream, bool* again) {
  if (loops.start >= loops.stop) return cudaSuccess;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaError_t error = cudaStreamIsCapturing(stream, &status);
  if (error != cudaSuccess) return error;
  cudaGraphExec_t graph = (*loops.kept)[loops.number];
  const bool captured = status != cudaStreamCaptureStatusNone;
  if (!captured && !graph) return begin_direct(loops, again);
  error = loops.set_next(loops.start);
  if (error != cudaSuccess) return error;
  if (!captured) return cudaGraphLaunch(graph, loops.outside);
  loops.outer = stream;
  error = open_body(loops, stream);
  *again = error == cudaSuccess;
  return error;
}

// The second pass of a loop whose first iteration was enqueued.
inline cudaError_t second_pass(Loops& loops, cudaStream_t& stream, bool* again) {
  if (loops.start + 1 >= loops.stop) return cudaSuccess;
  cudaError_t error = loops.set_next(loops.start + 1);
  if (error == cudaSuccess)
    error = cudaStreamBeginCapture(loops.around, cudaStreamCaptureModeRelaxed);
  if (error != cudaSuccess) return error;
  loops.outer = loops.around;
  error = open_body(loops, stream);
  *again = error == cudaSuccess;
  return *again ? error : launch_captured(loops, error);
}

// Whether the program has to enqueue the body once more, and to which stream.
inline bool next_pass(cudaStream_t& stream) {
  Loops& loops = *loops_of_call();
  const bool is_fine = failure().code == cudaSuccess;
  bool again = false;
  cudaError_t error = cudaSuccess;
  if (loops.made == Loops::Pass::captured)
    error = close_body(loops, stream);
  else if (is_fine && loops.made == Loops::Pass::direct)
    error = second_pass(loops, stream, &again);
  else if (is_fine)
    error = first_pass(loops, stream, &again);
  check(error, "a loop as a CUDA graph");
  return again;
}

}  // namespace dfc::cuda

#define DFC_NEXT_PASS() ::dfc::cuda::next_pass(__state->gpu_context->streams[0])
