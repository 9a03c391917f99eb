// Descriptions of tensors in global memory from which TMA copies boxes: made on the host, 128 bytes.
//
//   extents  [c0, c1, c2, …]     elements along each axis, the contiguous one first
//   strides      [c1, c2, …]     bytes from one element to the next along the other axes
//   box      [c0, c1, c2, …]     elements that one copy takes along each axis: 128 bytes of c0
//
// The driver encodes them. Its function is looked up through the runtime when the first map is
// made: nothing links to the driver, and a library with these kernels loads where there is none.
//
// Source: CUDA driver API, cuTensorMapEncodeTiled.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

#include "check.h"

namespace dfc::cuda {

// A kernel takes it as `const __grid_constant__ TensorMap`: copies need its address.
using TensorMap = CUtensorMap;

inline constexpr int MOST_AXES = 4;
// Coordinates are 32-bit numbers with a sign, and kernels count up to a tile beyond an extent.
inline constexpr long MOST_EXTENT = 0x7fffff00L;

// What a map is to describe; strides[0] belongs to extents[1].
struct TensorBoxes {
  const void* base;
  int axes;
  long extents[MOST_AXES];
  long strides[MOST_AXES - 1];
  int box[MOST_AXES];
};

template <class T>
struct MapType;
template <>
struct MapType<__nv_bfloat16> {
  static constexpr CUtensorMapDataType value = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
};
template <>
struct MapType<__half> {
  static constexpr CUtensorMapDataType value = CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
};

// Why TMA cannot copy such boxes with rows swizzled over 128 bytes; nullptr if it can.
inline const char* why_no_map(const TensorBoxes& of, int element_bytes) {
  if (of.axes < 3 || of.axes > MOST_AXES) return "a tensor has 3 or 4 axes";
  if (reinterpret_cast<std::uintptr_t>(of.base) % 16 != 0)
    return "its address is no multiple of 16";
  // Of shorter rows several would share the 128 bytes of a swizzle; tensors may be narrower.
  if (of.box[0] * element_bytes != 128) return "a row of a box is not 128 bytes";
  for (int i = 0; i < of.axes; ++i) {
    if (of.extents[i] < 1 || of.extents[i] > MOST_EXTENT)
      return "an extent is not between 1 and 2^31 - 256";
    if (of.box[i] < 1 || of.box[i] > 256) return "a side of a box is not between 1 and 256";
  }
  for (int i = 0; i + 1 < of.axes; ++i) {
    if (of.strides[i] < 16 || of.strides[i] >= 1L << 40)
      return "a stride is not between 16 and 2^40 - 1 bytes";
    if (of.strides[i] % 16 != 0) return "a stride is no multiple of 16 bytes";
  }
  return nullptr;
}

// The driver's function, or nullptr.
inline decltype(&cuTensorMapEncodeTiled) find_encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult outcome{};
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion(
        "cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &outcome);
#else
    const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function,
                                                      cudaEnableDefault, &outcome);
#endif
    const bool there = error == cudaSuccess && outcome == cudaDriverEntryPointSuccess;
    return there ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function) : nullptr;
  }();
  return found;
}

inline cudaError_t map_failed(const char* reason, cudaError_t code) {
  char sentence[200];
  std::snprintf(sentence, sizeof sentence, "a tensor cannot be copied by TMA: %s", reason);
  explain_failure(sentence);
  return code;
}

// Encodes a map of boxes with rows swizzled over 128 bytes; elements outside of the tensor are zero.
//
// Returns cudaErrorInvalidValue where `why_no_map` has a reason or the driver refuses, and
// cudaErrorNotSupported where the driver is older than CUDA 12; check.h keeps the sentence.
template <class T>
cudaError_t make_tensor_map(TensorMap* map, const TensorBoxes& of) {
  const char* reason = why_no_map(of, sizeof(T));
  if (reason != nullptr) return map_failed(reason, cudaErrorInvalidValue);
  const auto encode = find_encoder();
  if (encode == nullptr)
    return map_failed("the driver has no cuTensorMapEncodeTiled; it is older than CUDA 12",
                      cudaErrorNotSupported);
  cuuint64_t extents[MOST_AXES] = {}, strides[MOST_AXES - 1] = {};
  cuuint32_t box[MOST_AXES] = {};
  const cuuint32_t every[MOST_AXES] = {1, 1, 1, 1};
  for (int i = 0; i < of.axes; ++i) {
    extents[i] = static_cast<cuuint64_t>(of.extents[i]);
    box[i] = static_cast<cuuint32_t>(of.box[i]);
    if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(of.strides[i - 1]);
  }
  const CUresult result =
      encode(map, MapType<T>::value, static_cast<cuuint32_t>(of.axes), const_cast<void*>(of.base),
             extents, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return cudaSuccess;
  char sentence[80];
  std::snprintf(sentence, sizeof sentence, "cuTensorMapEncodeTiled gives %d",
                static_cast<int>(result));
  return map_failed(sentence, cudaErrorInvalidValue);
}

}  // namespace dfc::cuda
