// Launchers of the matrix product c = residual(activation(scale · a·b + bias)).
//
// Defined in gemm.cuh, which only the translation unit with the instances includes.
#pragma once

#include <cuda_runtime.h>

namespace dfc::cuda {

enum class Activation { none, gelu, gelu_tanh, silu, relu, tanh, sigmoid };
// gate: B has 2·N columns, and c = activation(scale · a·b[:, :N]) · (scale · a·b[:, N:]).
enum class Residual { none, add, mul, gate };
// What becomes of the rows of A before they are multiplied.
enum class Norm { none, root_mean_square };
// What becomes of float operands before they are multiplied; sums are floats either way.
enum class Floats { exact, tf32 };

// Kernels that an instance may hold. A program that knows its strides and rows leaves out the
// others, on which nvcc would spend most of its time; to need one that was left out is an error.
//
//   WIDTH, DEPTH: n or k of B contiguous and aligned.
//   ELEMENTS: any strides and alignment.
//   VECTOR: at most 8 rows, no tiles.
//   FEW, MEDIUM, LARGE, WIDE: tiles of 32 × 128 (not of exact floats), 64 × 64, 128 × 128, and
//   128 × 256 (16-bit types, for a plan only).
inline constexpr unsigned WIDTH = 1, DEPTH = 2, ELEMENTS = 4;
inline constexpr unsigned VECTOR = 8, FEW = 16, MEDIUM = 32, LARGE = 64, WIDE = 128;
inline constexpr unsigned MANY = MEDIUM | LARGE, ALL_KERNELS = 255;

// What a compiler chose for a product: VECTOR or a tile, and among how many blocks k is split.
// Without a choice (0) the rows and the multiprocessors of the device decide.
struct Plan {
  unsigned tile = 0;
  long parts = 0;
};

// A batch of products of [M, K] and [K, N]; strides count elements, and rows of c are contiguous.
//
// Attributes:
//   bias: [N], or nullptr.
//   residual: [batch, M, N] with contiguous rows; read where Residual is add or mul. It may be c.
//   gain: [K], factors of the elements of normalized rows; read where there is a Norm.
//   epsilon: what is added to the mean square of a row.
//   b_is_weight: no kernel writes b, so that it is read before the kernel in front has ended.
template <class T>
struct Gemm {
  long batch, M, N, K;
  const T* a;
  long a_row, a_col, a_batch;
  const T* b;
  long b_row, b_col, b_batch;
  T* c;
  long c_row, c_batch;
  const T* bias = nullptr;
  const T* residual = nullptr;
  long residual_row = 0, residual_batch = 0;
  float scale = 1.0f;
  Plan plan{};
  const T* gain = nullptr;
  float epsilon = 0.0f;
  bool b_is_weight = false;

  Gemm with(Plan chosen) const {
    Gemm same = *this;
    same.plan = chosen;
    return same;
  }

  Gemm normalized(const T* factors, float added) const {
    Gemm same = *this;
    same.gain = factors;
    same.epsilon = added;
    return same;
  }

  Gemm with_weights() const {
    Gemm same = *this;
    same.b_is_weight = true;
    return same;
  }
};

// Enqueues the product; returns what the launches returned.
//
// A normalization and a gate are for the matrix-vector kernel with B along depth: any other kernel
// that the instance names is left out.
template <class T, Activation activation, Residual residual, Floats floats = Floats::exact,
          unsigned kernels = ALL_KERNELS, Norm norm = Norm::none>
cudaError_t gemm(cudaStream_t stream, Gemm<T> p);

}  // namespace dfc::cuda
