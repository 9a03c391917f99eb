// The CPU kernels as functions, with the parallel loops that DaCe generates around them.
#include "cpu/attention.h"
#include "cpu/gemm.h"

using namespace dfc;

namespace {

template <class B, class E>
void product(long M, long N, long K, const float* a, const B* b, float* c, const E& epilogue) {
  const long slices = (N + gemm::WIDTH - 1) / gemm::WIDTH, blocks = (M + gemm::MC - 1) / gemm::MC;
#pragma omp parallel for collapse(2)
  for (long block = 0; block < blocks; ++block)
    for (long slice = 0; slice < slices; ++slice)
      gemm::packed_task(block, blocks, slice, M, N, K, gemm::Rows<float>{a, K, 1}, b, c, N,
                        epilogue);
}

}  // namespace

extern "C" {

void linear(long M, long N, long K, const float* a, const float* b, float* c, const float* bias) {
  product(M, N, K, a, b, c, Epilogue{Bias<float>{bias}});
}

void linear_gelu(long M, long N, long K, const float* a, const float* b, float* c,
                 const float* bias) {
  product(M, N, K, a, b, c, Epilogue{Bias<float>{bias}, Gelu{}});
}

void linear_int8(long M, long N, long K, const float* a, const std::int8_t* b, float* c,
                 const float* bias) {
  product(M, N, K, a, b, c, Epilogue{ColumnScale<float>{bias}, Bias<float>{bias}});
}

void matmul(long M, long N, long K, const float* a, const float* b, float* c) {
  const long slices = (N + gemm::WIDTH - 1) / gemm::WIDTH, blocks = (M + gemm::MC - 1) / gemm::MC;
#pragma omp parallel for collapse(2)
  for (long block = 0; block < blocks; ++block)
    for (long slice = 0; slice < slices; ++slice)
      gemm::strided_task(block, blocks, slice, M, N, K, gemm::Rows<float>{a, K, 1},
                         gemm::Rows<float>{b, N, 1}, c, N, Epilogue<>{});
}

// q, k, v and o are [batch, heads, tokens, width], row-major; the mask is [batch, 1, 1, keys].
void attention(long batch, long heads, long key_heads, long queries, long keys, long width,
               long causal, const float* q, const float* k, const float* v, const float* mask,
               float* o) {
  using namespace dfc::attention;
  const long group = heads / key_heads;
  const Sizes size{queries, keys, width, width, group};
  const float scale = 1.0f / sqrt(float(width));
#pragma omp parallel for collapse(3)
  for (long b = 0; b < batch; ++b)
    for (long h = 0; h < key_heads; ++h)
      for (long block = 0; block < tasks(size); ++block) {
        const long from = (b * heads + h * group) * queries * width;
        const long at = (b * key_heads + h) * keys * width;
        const Matrix<const float> qs{q + from, width, 1};
        const Matrix<const float> ks{k + at, width, 1}, vs{v + at, width, 1};
        const Matrix<float> os{o + from, width, 1};
        const long head = queries * width, at_head = keys * width;
        if (causal) {
          task<float>(block, size, scale, true, qs, head, ks, at_head, vs, at_head, NoMask{}, os,
                      head);
        } else {
          const AdditiveMask<float> hidden{mask + b * keys, 0, 1, 0};
          task<float>(block, size, scale, false, qs, head, ks, at_head, vs, at_head, hidden, os,
                      head);
        }
      }
}
}
