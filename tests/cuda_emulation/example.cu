// Kernels that test_cuda_emulation.py runs: right ones, and one for each mistake.
#include "cuda/launch.h"
#include "cuda/ptx.h"
using namespace dfc::cuda;

template <class T>
__device__ T sum_of_block(T value) {
  __shared__ T partial[32];
  for (int distance = 16; distance; distance /= 2)
    value += __shfl_down_sync(0xffffffffu, value, distance);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < blockDim.x / 32; ++warp) sum += partial[warp];
  return sum;
}

__global__ void sum_rows(float* sums, const float* x, long n) {
  float sum = 0;
  for (long i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
extern "C" int row_sums(float* sums, const float* x, long rows, long n) {
  return launch(sum_rows, dim3(rows), dim3(96), 0, nullptr, sums, x, n);
}

__global__ void reverse(float* y, const float* x, int skipped, int past) {
  float* tile = reinterpret_cast<float*>(dynamic_shared());
  const int i = threadIdx.x, n = blockDim.x;
  tile[i + past] = x[i];
  if (i != skipped) __syncthreads();
  y[i] = tile[n - 1 - i];
}
extern "C" int reversed(float* y, const float* x, long n, long skipped, long past) {
  return launch(reverse, dim3(1), dim3(n), n * sizeof(float), nullptr, y, x, int(skipped),
                int(past));
}

__global__ void reverse_unprotected(float* y, const float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[63 - threadIdx.x];
}
extern "C" int reversed_unprotected(float* y, const float* x) {
  return launch(reverse_unprotected, dim3(1), dim3(64), 0, nullptr, y, x);
}

__global__ void collide(float* y) { y[0] = float(threadIdx.x); }
extern "C" int collided(float* y) { return launch(collide, dim3(1), dim3(2), 0, nullptr, y); }

__global__ void scale_typed(float* y, const float* x, long n) {
  const long i = blockIdx.y * long(blockDim.x) + threadIdx.x;
  if (i < n) y[i] = 2.0f * x[i];
}
extern "C" int scaled(float* y, const float* x, long n, long blocks) {
  void* scale_args[] = {(void*)&y, (void*)&x, (void*)&n};
  return cudaLaunchKernel((void*)scale_typed, dim3(1, blocks, 1), dim3(64, 1, 1), scale_args, 0,
                          nullptr);
}

__global__ void warp_operations(int* o) {
  const int lane = threadIdx.x;
  int* row = o + lane;
  row[0] = __shfl_sync(0xffffffffu, lane, 5);
  row[32] = __shfl_sync(0xffffffffu, lane, 3, 8);
  row[64] = __shfl_xor_sync(0xffffffffu, lane, 6);
  row[96] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
  row[128] = __shfl_up_sync(0xffffffffu, lane, 3, 16);
  row[160] = int(__ballot_sync(0xffffffffu, lane % 3 == 0));
  row[192] = __any_sync(0xffffffffu, lane == 9) + 2 * __all_sync(0xffffffffu, lane != 9);
  row[224] = __reduce_max_sync(0xffffffffu, (lane * 7) % 32);
  row[256] = lane < 8 ? __shfl_sync(0xffu, lane, 7) : __shfl_sync(0xffffff00u, lane, 8);
  row[288] = __syncthreads_count(lane % 4 == 0);
}
extern "C" int warps(int* o) { return launch(warp_operations, dim3(1), dim3(32), 0, nullptr, o); }

__global__ void shuffle_some(int* o, int missing) {
  if (threadIdx.x != missing) o[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}
extern "C" int some(int* o, long missing) {
  return launch(shuffle_some, dim3(1), dim3(32), 0, nullptr, o, int(missing));
}

// One warp: c = a·b of [16, 16] and [16, 8], through cp.async and ldmatrix.
template <class T>
__global__ void product(float* c, const T* a, const T* b, int wait) {
  __shared__ __align__(16) T tile_a[16][16];
  __shared__ __align__(16) T tile_b[16][8];
  const int lane = threadIdx.x, row = lane / 2, half = lane % 2 * 8;
  cp_async_16(&tile_a[row][half], a + row * 16 + half, 16);
  if (lane < 16) cp_async_16(&tile_b[lane][0], b + lane * 8, 16);
  cp_async_commit();
  if (wait) cp_async_wait<0>(); else cp_async_wait<1>();
  __syncwarp();
  unsigned fragment_a[4], fragment_b[2];
  ldmatrix_x4(fragment_a, &tile_a[lane % 16][lane / 16 * 8]);
  ldmatrix_x2_trans(fragment_b, &tile_b[lane % 16][0]);
  float sums[4] = {};
  mma_m16n8k16(sums, fragment_a, fragment_b, T());
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
extern "C" int product_bf16(float* c, const __nv_bfloat16* a, const __nv_bfloat16* b, long wait) {
  return launch(product<__nv_bfloat16>, dim3(1), dim3(32), 0, nullptr, c, a, b, int(wait));
}
extern "C" int product_f16(float* c, const __half* a, const __half* b, long wait) {
  return launch(product<__half>, dim3(1), dim3(32), 0, nullptr, c, a, b, int(wait));
}

// One warp: c = a·b of [16, 8] and [8, 8].
__global__ void product_tf32(float* c, const float* a, const float* b) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  unsigned left[4], right[2];
  for (int i = 0; i < 4; ++i) left[i] = to_tf32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) right[i] = to_tf32(b[(t + i * 4) * 8 + g]);
  float sums[4] = {};
  mma_m16n8k8_tf32(sums, left, right);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sums[i];
}
extern "C" int products_tf32(float* c, const float* a, const float* b) {
  return launch(product_tf32, dim3(1), dim3(32), 0, nullptr, c, a, b);
}

__global__ void misaligned(float* y, const float* x) {
  reinterpret_cast<float4*>(y)[0] = *reinterpret_cast<const float4*>(x + 1);
}
extern "C" int four_at_once(float* y, const float* x) {
  return launch(misaligned, dim3(1), dim3(1), 0, nullptr, y, x);
}

// y = w·x, both of n, by kernels that begin before x is there: right, and with one mistake each.
struct Scaling {
  float* y;
  const float *w, *x;
  long n;
};

enum class Mistake { none, never_waits, some_wait, reads_early, copies_early, writes_early };

template <Mistake mistake>
__global__ void scale_early(Awaited<Scaling> given) {
  __shared__ __align__(16) float copied[64][4];
  const Scaling& early = given.early();
  const int i = threadIdx.x;
  const float w = early.w[i];
  prefetch_l2(early.w + i);
  if (mistake == Mistake::copies_early) cp_async_16(copied[i], early.x + i / 4 * 4, 16);
  if (mistake == Mistake::writes_early) early.y[i] = 0.0f;
  volatile float x = mistake == Mistake::reads_early ? early.x[i] : 0.0f;
  const bool waits = mistake == Mistake::some_wait ? i != 40 : mistake != Mistake::never_waits;
  if (!waits) return;
  x = given.wait().x[i];
  early.y[i] = w * x;
}
template <Mistake mistake>
int scaled_early(float* y, const float* w, const float* x, long n) {
  return launch(scale_early<mistake>, dim3(1), dim3(n), 0, nullptr, Scaling{y, w, x, n});
}
#define SCALED(mistake)                                                                     \
  extern "C" int scaled_##mistake(float* y, const float* w, const float* x, long n) {       \
    return scaled_early<Mistake::mistake>(y, w, x, n);                                      \
  }
SCALED(none)
SCALED(never_waits)
SCALED(some_wait)
SCALED(reads_early)
SCALED(copies_early)
SCALED(writes_early)
