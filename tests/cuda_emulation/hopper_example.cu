// Small kernels of the instructions of sm_90a, right and wrong, for test_cuda_hopper.py.
#include "cuda/gemm_tile.cuh"
#include "cuda/launch.h"
#include "cuda/tma.h"
#include "cuda/warp_group.h"
#include "cuda/wgmma.h"

using namespace dfc::cuda;

// y[rows][64]: the box of `rows` rows at some coordinates, through shared memory. `mistake`: 1 too
// few bytes are expected, 2 the copy is not waited for, 3 no barrier is initialized, 4 a missing
// arrival.
__global__ void copy_box(const __grid_constant__ TensorMap map, __half* y, int rows, int4 at,
                         int axes, int mistake) {
  __shared__ Barrier there;
  auto* tile = reinterpret_cast<__half*>(aligned_1024(dynamic_shared()));
  if (threadIdx.x == 0) {
    if (mistake != 3) there.init(mistake == 4 ? 2 : 1);
    fence_barriers();
    prefetch_map(map);
    there.arrive_expecting(rows * 128 - (mistake == 1 ? 2 : 0));
    if (axes == 3) load_tile(tile, map, there, at.x, at.y, at.z);
    if (axes == 4) load_tile(tile, map, there, at.x, at.y, at.z, at.w);
  }
  __syncthreads();
  if (mistake == 2) return;
  there.wait(0);
  for (int i = threadIdx.x; i < rows * 64; i += blockDim.x)
    y[i] = tile[swizzled<8>(i / 64, i % 64 / 8) * 8 + i % 8];
}

extern "C" int copied(__half* y, const __half* x, const long* extents, const long* strides,
                      const long* box, const long* at, long axes, long mistake) {
  TensorBoxes of{x, static_cast<int>(axes)};
  int rows = 1;
  for (int i = 0; i < axes; ++i) {
    of.extents[i] = extents[i];
    of.box[i] = static_cast<int>(box[i]);
    if (i > 0) of.strides[i - 1] = strides[i - 1];
    if (i > 0) rows *= of.box[i];
  }
  TensorMap map;
  if (make_tensor_map<__half>(&map, of) != cudaSuccess) {
    emulation::set_message(failure().detail);
    clear_failure();
    return 1;
  }
  const int4 first{int(at[0]), int(at[1]), int(at[2]), axes == 4 ? int(at[3]) : 0};
  return launch(copy_box, dim3(1), dim3(64), rows * 128 + 1024, nullptr, map, y, rows, first,
                int(axes), int(mistake));
}

// y[i] = 2 · x[i]: warp 0 hands x over in rings of two stages, warp 1 doubles. `mistake`: 1 the
// consumer does not turn its parity, 2 the producer does not wait for room.
__global__ void hand_over(float* y, const float* x, int steps, int mistake) {
  __shared__ Barrier full[2], empty[2];
  __shared__ float stage[2][32];
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) full[i].init(32), empty[i].init(32);
    fence_barriers();
  }
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    const int i = step % 2, parity = step / 2 % 2;
    if (threadIdx.x < 32) {
      if (mistake != 2) empty[i].wait(parity ^ 1);
      stage[i][lane] = x[step * 32 + lane];
      full[i].arrive();
    } else {
      full[i].wait(mistake == 1 ? 0 : parity);
      y[step * 32 + lane] = 2 * stage[i][lane];
      empty[i].arrive();
    }
  }
}
extern "C" int handed_over(float* y, const float* x, long steps, long mistake) {
  return launch(hand_over, dim3(1), dim3(64), 0, nullptr, y, x, int(steps), int(mistake));
}

// y reversed among two warps, by a barrier of these two in a block of three; or of other counts.
__global__ void turn_round(float* y, const float* x, int other) {
  __shared__ float all[64];
  if (threadIdx.x >= 64) return;
  all[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32) {
    arrive_at(2, 64);
    sync_at(1, 64);
  } else {
    sync_at(2, other);
    arrive_at(1, 64);
  }
  y[threadIdx.x] = all[63 - threadIdx.x];
}
extern "C" int turned(float* y, const float* x, long other) {
  return launch(turn_round, dim3(1), dim3(96), 0, nullptr, y, x, int(other));
}

// c = a·b + a·b, 64 × N × 16, with A from shared memory, then from registers. `mistake`: 1 what was
// written is not fenced, 2 registers are not.
template <class T, int N, bool transposed>
__global__ void multiply(float* c, const T* a, const T* b, int mistake) {
  unsigned char* shared = aligned_1024(dynamic_shared());
  T *left = reinterpret_cast<T*>(shared), *right = left + 64 * 64;
  for (int i = threadIdx.x; i < 64 * 16; i += 128)
    left[swizzled<8>(i / 16, i % 16 / 8) * 8 + i % 8] = a[i];
  for (int i = threadIdx.x; i < N * 16; i += 128) {
    const int n = i % N, k = i / N, row = transposed ? n / 64 * 16 + k : n;
    const int column = transposed ? n % 64 : k;
    right[swizzled<8>(row, column / 8) * 8 + column % 8] = b[i];
  }
  if (mistake != 1) fence_for_copies();
  __syncthreads();
  const Descriptor from_b = make_descriptor(right, transposed ? 2048 : 16, 1024);
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  unsigned registers[4];
  for (int i = 0; i < 4; ++i) {
    const T* pair = a + (row + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    registers[i] = *reinterpret_cast<const unsigned*>(pair);
  }
  float d[N / 2];
  if (mistake != 2) wgmma_begin();
  wgmma_m64k16<transposed>(d, make_descriptor(left, 16, 1024), from_b, T{}, false);
  wgmma_m64k16<transposed>(d, registers, from_b, T{}, true);
  wgmma_commit();
  wgmma_wait<0>();
  keep_in_place(d);
  for (int i = 0; i < N / 2; ++i)
    c[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2] = d[i];
}
template <class T, int N>
int product(float* c, const T* a, const T* b, long transposed, long mistake) {
  const auto kernel = transposed ? multiply<T, N, true> : multiply<T, N, false>;
  return launch(kernel, dim3(1), dim3(128), (64 + N) * 128 + 1024, nullptr, c, a, b,
                int(mistake));
}
#define PRODUCT(T, N)                                                                           \
  extern "C" int product_##T##_##N(float* c, const T* a, const T* b, long transposed,           \
                                   long mistake) {                                              \
    return product<T, N>(c, a, b, transposed, mistake);                                         \
  }
PRODUCT(__nv_bfloat16, 64)
PRODUCT(__nv_bfloat16, 128)
PRODUCT(__nv_bfloat16, 256)
PRODUCT(__half, 64)
PRODUCT(__half, 256)
