// What the C interface asks of the CUDA runtime besides kernels and memory. A captured call runs while
// it is captured; a launch of its graph is only counted.
#include <cuda_runtime_api.h>

#define EMULATED extern "C" __attribute__((visibility("default")))

static long launches = 0;

EMULATED long emulation_graph_launches() { return launches; }

EMULATED cudaError_t CUDARTAPI cudaMemGetInfo(size_t* free_there, size_t* all) {
  *free_there = size_t(1) << 30;
  *all = size_t(1) << 31;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = cudaGraph_t(1);
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t,
                                                    unsigned long long) {
  *executable = cudaGraphExec_t(1);
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  ++launches;
  return cudaSuccess;
}
EMULATED cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
EMULATED cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
