// What this machine can do at most: fp32 multiply-adds from registers, and reading from memory.
#include <omp.h>
#include <chrono>
#include <cstddef>
#include <cstdlib>

#if defined(__AVX512F__)
#define DFC_BYTES 64
#elif defined(__AVX2__)
#define DFC_BYTES 32
#else
#define DFC_BYTES 16
#endif

typedef float vec __attribute__((vector_size(DFC_BYTES)));

namespace {

constexpr int LANES = DFC_BYTES / 4;
// Enough independent sums to cover latency × issue rate, few enough to stay in registers.
constexpr int SUMS = DFC_BYTES == 64 ? 24 : 10;
constexpr int STEPS = 4096;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One thread's operations: STEPS × SUMS vector multiply-adds.
[[gnu::noinline]] float multiply_add(float seed) {
  vec sum[SUMS];
  vec a = seed - vec{};
  vec b = 1e-9f - vec{};
#pragma GCC unroll 32
  for (int i = 0; i < SUMS; ++i) sum[i] = seed + float(i) - vec{};
  for (int step = 0; step < STEPS; ++step) {
#pragma GCC unroll 32
    for (int i = 0; i < SUMS; ++i) {
      sum[i] = sum[i] * a + b;
      asm volatile("" : "+v"(sum[i]));
    }
  }
  vec total = vec{};
#pragma GCC unroll 32
  for (int i = 0; i < SUMS; ++i) total += sum[i];
  float result = 0;
  for (int lane = 0; lane < LANES; ++lane) result += total[lane];
  return result;
}

[[gnu::noinline]] float read(const float* data, size_t count) {
  vec sum[8] = {};
  for (size_t i = 0; i + 8 * LANES <= count; i += 8 * LANES) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sum[j] += *reinterpret_cast<const vec*>(data + i + j * LANES);
  }
  float result = 0;
  for (auto& part : sum)
    for (int lane = 0; lane < LANES; ++lane) result += part[lane];
  return result;
}

}  // namespace

extern "C" {

// Most multiply-adds a second seen in any interval, counted as two operations, in GFLOP/s.
double dfc_fma_gflops(int threads, double seconds) {
  double best = 0;
  const double stop = now() + seconds;
  volatile float sink = 0;
  while (now() < stop) {
    const double start = now();
    constexpr int repeats = 64;
#pragma omp parallel num_threads(threads)
    for (int i = 0; i < repeats; ++i) sink = multiply_add(0.999f);
    const double rate = 2.0 * repeats * threads * STEPS * SUMS * LANES / (now() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  return best;
}

// Most bytes a second read by all threads from `bytes` of memory, in GB/s; negative: no memory.
double dfc_read_gbps(int threads, size_t bytes, double seconds) {
  const size_t count = bytes / 4 / threads / 1024 * 1024;
  float* data = static_cast<float*>(std::aligned_alloc(64, count * threads * 4));
  if (!data) return -1;
#pragma omp parallel num_threads(threads)
  {
    float* mine = data + count * omp_get_thread_num();
    for (size_t i = 0; i < count; ++i) mine[i] = 1.0f;
  }
  double best = 0;
  const double stop = now() + seconds;
  volatile float sink = 0;
  while (now() < stop) {
    const double start = now();
#pragma omp parallel num_threads(threads)
    sink = read(data + count * omp_get_thread_num(), count);
    const double rate = 4.0 * count * threads / (now() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  std::free(data);
  return best;
}
}
