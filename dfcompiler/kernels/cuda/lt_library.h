// The functions of cuBLASLt that products need, found by dlopen: no header and no link to cuBLAS.
//
// Looked for: the file that DFC_CUBLASLT names and no other, or else libcublasLt.so.13, .12 and
// libcublasLt.so in this order.
// Values are part of the library's binary interface, the same in the versions 12 and 13.
// Source: cuBLAS documentation, "Using the cuBLASLt API": cublasLtMatmulDescAttributes_t,
// cublasLtMatrixLayoutAttribute_t, cublasLtEpilogue_t, cublasLtMatmulPreferenceAttributes_t,
// cublasLtMatmulHeuristicResult_t, cublasComputeType_t.
#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace dfc::cuda::lt {

using Status = int;
using Object = void*;

inline constexpr Status SUCCESS = 0;
inline constexpr int COMPUTE_FLOAT = 68;
inline constexpr std::int32_t AS_IT_IS = 0, TRANSPOSED = 1;

enum DescAttribute : int { TRANSPOSE_A = 3, TRANSPOSE_B = 4, EPILOGUE = 7, BIAS_POINTER = 8 };
enum LayoutAttribute : int { BATCH_COUNT = 5, BATCH_STRIDE = 6 };
enum PreferenceAttribute : int { MAX_WORKSPACE_BYTES = 1, MIN_ALIGNMENT_A = 5 };
// Sums of these are epilogues too: BIAS + GELU. GELU is the approximation by tanh.
enum Epilogue : std::uint32_t { PLAIN = 1, RELU = 2, BIAS = 4, GELU = 32 };

struct Algorithm {
  std::uint64_t data[8];
};

struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96 && offsetof(Heuristic, state) == 72);

struct Library {
  void* file = nullptr;
  Status (*create)(Object* handle) = nullptr;
  Status (*desc_create)(Object* desc, int compute, int scale) = nullptr;
  Status (*desc_set)(Object desc, int attribute, const void* value, std::size_t bytes) = nullptr;
  Status (*layout_create)(Object* layout, int type, std::uint64_t rows, std::uint64_t columns,
                          std::int64_t stride) = nullptr;
  Status (*layout_set)(Object layout, int attribute, const void* value,
                       std::size_t bytes) = nullptr;
  Status (*preference_create)(Object* preference) = nullptr;
  Status (*preference_set)(Object preference, int attribute, const void* value,
                           std::size_t bytes) = nullptr;
  Status (*preference_destroy)(Object preference) = nullptr;
  Status (*heuristic)(Object handle, Object desc, Object a, Object b, Object c, Object d,
                      Object preference, int wanted, Heuristic* found, int* count) = nullptr;
  Status (*matmul)(Object handle, Object desc, const void* alpha, const void* a, Object a_layout,
                   const void* b, Object b_layout, const void* beta, const void* c, Object c_layout,
                   void* d, Object d_layout, const Algorithm* algorithm, void* workspace,
                   std::size_t workspace_bytes, cudaStream_t stream) = nullptr;
};

template <class Function>
bool find(void* file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(file, name));
  return function != nullptr;
}

inline Library open_library() {
  Library l;
  const char* named = std::getenv("DFC_CUBLASLT");
  const char* names[] = {named, "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
  for (const char* name : names) {
    if (l.file == nullptr && name != nullptr) l.file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (name == named && named != nullptr) break;
  }
  if (l.file == nullptr) return l;
  const bool complete = find(l.file, "cublasLtCreate", l.create) &&
                        find(l.file, "cublasLtMatmulDescCreate", l.desc_create) &&
                        find(l.file, "cublasLtMatmulDescSetAttribute", l.desc_set) &&
                        find(l.file, "cublasLtMatrixLayoutCreate", l.layout_create) &&
                        find(l.file, "cublasLtMatrixLayoutSetAttribute", l.layout_set) &&
                        find(l.file, "cublasLtMatmulPreferenceCreate", l.preference_create) &&
                        find(l.file, "cublasLtMatmulPreferenceSetAttribute", l.preference_set) &&
                        find(l.file, "cublasLtMatmulPreferenceDestroy", l.preference_destroy) &&
                        find(l.file, "cublasLtMatmulAlgoGetHeuristic", l.heuristic) &&
                        find(l.file, "cublasLtMatmul", l.matmul);
  if (!complete) {
    dlclose(l.file);
    l.file = nullptr;
  }
  return l;
}

// The library, or one whose `file` is nullptr; opened once for the process.
inline const Library& library() {
  static const Library opened = open_library();
  return opened;
}

}  // namespace dfc::cuda::lt
