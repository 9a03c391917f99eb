// Products by cuBLASLt: our row-major matrices as its column-major ones, and plans that are kept.
//
//   ours, row-major            the library's, column-major
//   c[M, N] = a[M, K]·b[K, N]  d[N, M] = (b as [N, K]) · (a as [K, M]): operands change places
//
//   n of b contiguous: as it is, stride b_row        k of a contiguous: as it is, stride a_row
//   k of b contiguous: transposed, stride b_col      m of a contiguous: transposed, stride a_col
//
//   bias, relu, gelu by tanh                  epilogues of the library
//   residual added, no activation             its beta·C with beta = 1, without a copy
//   anything else                             one more sweep over c (`finish_in_place`)
//
// A plan (descriptors and the algorithm that the library's heuristic ranks first) is made once for
// each shape, type, epilogue and alignment, and kept for the process.
#pragma once

#include <array>
#include <cstdio>
#include <map>
#include <mutex>
#include <type_traits>

#include "check.h"
#include "gemm_finish.cuh"
#include "gemm_lt.h"
#include "launch.h"
#include "lt_library.h"
#include "workspace.h"

namespace dfc::cuda {
namespace lt {

// One operand in the library's terms.
struct Matrix {
  const void* data;
  long rows, columns, stride, batch_stride;
  std::int32_t transpose;
};

struct Plan {
  Object desc, a, b, c, d;
  Heuristic choice;
};

// Everything that a plan depends on, in a fixed order.
using Key = std::array<long, 24>;

struct Plans {
  std::mutex lock;
  std::map<int, Object> handles;
  std::map<Key, Plan> plans;
};

inline Plans& plans() {
  static Plans all;
  return all;
}

inline cudaError_t failed(const char* what, Status status) {
  char sentence[160];
  std::snprintf(sentence, sizeof sentence, "cuBLASLt: %s failed with status %d", what, status);
  explain_failure(sentence);
  return cudaErrorNotSupported;
}

// The alignment of an address as the heuristic may count on it: 16 to 256 bytes, or less.
inline std::uint32_t alignment_of(const void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  std::uint32_t bytes = 256;
  while (bytes > 1 && value % bytes != 0) bytes /= 2;
  return bytes;
}

inline Status make_layout(const Matrix& m, int type, long batch, Object* layout) {
  const Library& l = library();
  const std::int32_t count = static_cast<std::int32_t>(batch);
  const std::int64_t step = m.batch_stride;
  Status status = l.layout_create(layout, type, m.rows, m.columns, m.stride);
  if (status == SUCCESS && batch > 1)
    status = l.layout_set(*layout, BATCH_COUNT, &count, sizeof count);
  if (status == SUCCESS && batch > 1)
    status = l.layout_set(*layout, BATCH_STRIDE, &step, sizeof step);
  return status;
}

// A new plan; matrices are a, b, c, d in the library's order.
inline cudaError_t make_plan(Object handle, const Matrix (&m)[4], int type, long batch,
                             std::uint32_t epilogue, const void* bias, Plan* plan) {
  const Library& l = library();
  Status status = l.desc_create(&plan->desc, COMPUTE_FLOAT, CUDA_R_32F);
  auto set = [&](int attribute, const void* value, std::size_t bytes) {
    if (status == SUCCESS) status = l.desc_set(plan->desc, attribute, value, bytes);
  };
  set(TRANSPOSE_A, &m[0].transpose, sizeof m[0].transpose);
  set(TRANSPOSE_B, &m[1].transpose, sizeof m[1].transpose);
  set(EPILOGUE, &epilogue, sizeof epilogue);
  if (bias != nullptr) set(BIAS_POINTER, &bias, sizeof bias);
  if (status != SUCCESS) return failed("describing a product", status);
  Object* layouts[] = {&plan->a, &plan->b, &plan->c, &plan->d};
  for (int i = 0; i < 4 && status == SUCCESS; ++i)
    status = make_layout(m[i], type, batch, layouts[i]);
  if (status != SUCCESS) return failed("describing a matrix", status);
  Object preference = nullptr;
  status = l.preference_create(&preference);
  const std::uint64_t room = WORKSPACE_BYTES;
  if (status == SUCCESS)
    status = l.preference_set(preference, MAX_WORKSPACE_BYTES, &room, sizeof room);
  for (int i = 0; i < 4 && status == SUCCESS; ++i) {
    const std::uint32_t bytes = alignment_of(m[i].data);
    status = l.preference_set(preference, MIN_ALIGNMENT_A + i, &bytes, sizeof bytes);
  }
  int count = 0;
  if (status == SUCCESS)
    status = l.heuristic(handle, plan->desc, plan->a, plan->b, plan->c, plan->d, preference, 1,
                         &plan->choice, &count);
  if (preference != nullptr) l.preference_destroy(preference);
  if (status == SUCCESS && count == 0) status = plan->choice.state;
  return status == SUCCESS && count > 0 ? cudaSuccess : failed("choosing an algorithm", status);
}

inline Key key_of(int device, const Matrix (&m)[4], int type, long batch, std::uint32_t epilogue,
                  const void* bias) {
  Key key{device, type, batch, epilogue, alignment_of(bias), m[0].transpose, m[1].transpose};
  int at = 7;
  for (int i = 0; i < 4; ++i) {
    key[at++] = m[i].stride;
    key[at++] = m[i].batch_stride;
    key[at++] = alignment_of(m[i].data);
  }
  key[at++] = m[3].rows;
  key[at++] = m[3].columns;
  key[at] = m[0].transpose ? m[0].rows : m[0].columns;
  return key;
}

// d = epilogue(scale · a·b + beta · c), all in the library's terms.
inline cudaError_t multiply(cudaStream_t stream, const Matrix (&m)[4], int type, long batch,
                            std::uint32_t epilogue, const void* bias, float scale, float beta) {
  const Library& l = library();
  if (l.file == nullptr) {
    explain_failure(
        "cuBLASLt is not found as libcublasLt.so.13 or .12: install nvidia-cublas, name the file "
        "in DFC_CUBLASLT, or compile with the native matrix product");
    return cudaErrorSharedObjectInitFailed;
  }
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  void* workspace = nullptr;
  if (error == cudaSuccess) error = workspace_of(stream, &workspace);
  if (error != cudaSuccess) return error;
  Plans& all = plans();
  const std::lock_guard<std::mutex> held(all.lock);
  Object& handle = all.handles[device];
  if (handle == nullptr) {
    const Status status = l.create(&handle);
    if (status != SUCCESS) return failed("opening the library", status);
  }
  const Key key = key_of(device, m, type, batch, epilogue, bias);
  auto kept = all.plans.find(key);
  if (kept == all.plans.end()) {
    Plan plan{};
    error = make_plan(handle, m, type, batch, epilogue, bias, &plan);
    if (error != cudaSuccess) return error;
    kept = all.plans.emplace(key, plan).first;
  }
  const Plan& plan = kept->second;
  if (bias != nullptr) {
    const Status status = l.desc_set(plan.desc, BIAS_POINTER, &bias, sizeof bias);
    if (status != SUCCESS) return failed("naming a bias", status);
  }
  const Status status =
      l.matmul(handle, plan.desc, &scale, m[0].data, plan.a, m[1].data, plan.b, &beta, m[2].data,
               plan.c, const_cast<void*>(m[3].data), plan.d, &plan.choice.algorithm, workspace,
               plan.choice.workspace_bytes, stream);
  return status == SUCCESS ? cudaSuccess : failed("the product", status);
}

template <class T>
constexpr int type_of() {
  if constexpr (std::is_same_v<T, float>) return CUDA_R_32F;
  if constexpr (std::is_same_v<T, __half>) return CUDA_R_16F;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return CUDA_R_16BF;
}

inline constexpr int FINISH_THREADS = 256;

// c = residual(activation(c)): what no epilogue of the library does.
template <class T, Activation activation, Residual residual>
__global__ void __launch_bounds__(FINISH_THREADS) finish_in_place(Awaited<Gemm<T>> given) {
  const Gemm<T>& p = given.wait();
  const long at = static_cast<long>(blockIdx.x) * FINISH_THREADS + threadIdx.x;
  if (at >= p.batch * p.M * p.N) return;
  const long column = at % p.N, row = at / p.N % p.M, batch = at / p.N / p.M;
  T& element = p.c[batch * p.c_batch + row * p.c_row + column];
  element = finished<activation, residual>(p, batch, row, column, to_float(element));
}

}  // namespace lt

template <class T, Activation activation, Residual residual>
cudaError_t gemm_lt(cudaStream_t stream, Gemm<T> p) {
  if (p.batch < 1 || p.M < 1 || p.N < 1) return cudaSuccess;
  const bool n_first = p.b_col == 1, m_first = p.a_col != 1 && p.a_row == 1;
  if (p.K < 1 || (!n_first && p.b_row != 1) || (p.a_col != 1 && !m_first)) {
    explain_failure(
        "cuBLASLt multiplies matrices with a contiguous axis and at least one step of k");
    return cudaErrorInvalidValue;
  }
  constexpr bool act = activation == Activation::none || activation == Activation::relu ||
                       activation == Activation::gelu_tanh;
  constexpr bool added = residual == Residual::add && activation == Activation::none;
  constexpr bool whole = added || (act && residual == Residual::none);
  lt::Matrix b{p.b, n_first ? p.N : p.K, n_first ? p.K : p.N, n_first ? p.b_row : p.b_col,
               p.b_batch, n_first ? lt::AS_IT_IS : lt::TRANSPOSED};
  lt::Matrix a{p.a, m_first ? p.M : p.K, m_first ? p.K : p.M, m_first ? p.a_col : p.a_row,
               p.a_batch, m_first ? lt::TRANSPOSED : lt::AS_IT_IS};
  const lt::Matrix d{p.c, p.N, p.M, p.c_row, p.c_batch, lt::AS_IT_IS};
  lt::Matrix c = d;
  if (added) {
    c.data = p.residual;
    c.stride = p.residual_row;
    c.batch_stride = p.residual_batch;
  }
  std::uint32_t epilogue = 0;
  if (p.bias != nullptr) epilogue |= lt::BIAS;
  if (whole && activation == Activation::relu) epilogue |= lt::RELU;
  if (whole && activation == Activation::gelu_tanh) epilogue |= lt::GELU;
  if (epilogue == 0) epilogue = lt::PLAIN;
  const lt::Matrix operands[4] = {b, a, c, d};
  const cudaError_t error = lt::multiply(stream, operands, lt::type_of<T>(), p.batch, epilogue,
                                         p.bias, p.scale, added ? 1.0f : 0.0f);
  if (whole || error != cudaSuccess) return error;
  const long blocks = (p.batch * p.M * p.N + lt::FINISH_THREADS - 1) / lt::FINISH_THREADS;
  p.scale = 1.0f;
  p.bias = nullptr;
  return launch(lt::finish_in_place<T, activation, residual>, dim3(static_cast<unsigned>(blocks)),
                dim3(lt::FINISH_THREADS), 0, stream, p);
}

}  // namespace dfc::cuda
