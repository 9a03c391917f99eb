// The GPU of a process: whether there is one that can run this code, and sentences about it. It is
// the first one that CUDA_VISIBLE_DEVICES shows.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/check.h"

static const int kDevice = 0;

static int fail_gpu(cudaError_t code, const char *doing) {
  return fail(MODEL(DEVICE), "the GPU failed %s: %s", doing, cudaGetErrorString(code));
}

// Makes the GPU the calling thread's device, and puts back what it was before.
struct OnDevice {
  OnDevice() {
    if (cudaGetDevice(&before) != cudaSuccess) before = kDevice;
    if (before != kDevice) cudaSetDevice(kDevice);
  }
  ~OnDevice() {
    if (before != kDevice) cudaSetDevice(before);
  }
  OnDevice(const OnDevice &) = delete;
  OnDevice &operator=(const OnDevice &) = delete;
  int before = kDevice;
};

static int check_driver() {
  int found = 0;
  const int same = CUDART_VERSION / 1000 * 1000;  // drivers run all minor versions of a major one
  const int graphs = kMajor < 9 ? 0 : 12030;      // those whose graphs keep the overlap of kernels
  const int needed = same > graphs ? same : graphs;
  if (cudaDriverGetVersion(&found) != cudaSuccess || !found)
    return fail(MODEL(DEVICE),
                "there is no CUDA driver on this machine; the artifact is for " TARGET_NAME
                " and needs a driver for CUDA %d.%d or newer",
                needed / 1000, needed % 1000 / 10);
  if (found < needed)
    return fail(MODEL(DEVICE),
                "the CUDA driver is too old: it is for CUDA %d.%d; the artifact needs %d.%d or newer",
                found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10);
  return MODEL(OK);
}

static int check_presence() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess && code != cudaErrorNoDevice)
    return fail(MODEL(DEVICE), "the GPU cannot be used: %s", cudaGetErrorString(code));
  if (count) return MODEL(OK);
  const char *visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return fail(MODEL(DEVICE), "the CUDA driver finds no GPU%s%s%s",
              visible ? "; CUDA_VISIBLE_DEVICES is '" : "", visible ? visible : "",
              visible ? "'" : "");
}

// Code for 9.0a runs on 9.0 alone; code for 8.0 on 8.0 and what came after it up to 8.9.
static int check_architecture() {
  int major = 0, minor = 0;
  cudaError_t code = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, kDevice);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, kDevice);
  if (code != cudaSuccess) return fail_gpu(code, "to say what it is");
  const bool fits = kExactArchitecture ? minor == kMinor : minor >= kMinor;
  if (major == kMajor && fits) return MODEL(OK);
  return fail(MODEL(DEVICE),
              "the artifact is for " TARGET_NAME ", the GPU is sm_%d%d; compile the model with "
              "--target cuda:sm_%d%d",
              major, minor, major, minor);
}

// Whether this process has a GPU that runs the code.
static int may_run() {
  if (int status = check_driver()) return status;
  if (int status = check_presence()) return status;
  return check_architecture();
}
