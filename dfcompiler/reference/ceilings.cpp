// What this machine can do at most: multiply-adds from registers, the register tile of a matrix
// product fed from the L1, bf16 products, and reading from memory.
#include <omp.h>
#include <chrono>
#include <cstddef>
#include <cstdlib>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

// MR × NV vectors of sums, as in kernels/cpu/gemm.h; both operands are at most 26 KB of L1.
constexpr int MR = DFC_BYTES == 16 ? 4 : 6;
constexpr int NV = DFC_BYTES == 64 ? 4 : 2;
constexpr int KC = DFC_BYTES == 64 ? 96 : 256;
constexpr int PASSES = 16;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// An array handed to a function would live in memory; here it stays in registers.
template <int Count>
[[gnu::always_inline]] inline float total(const vec (&sums)[Count]) {
  vec sum = {};
#pragma GCC unroll 32
  for (int i = 0; i < Count; ++i) sum += sums[i];
  float result = 0;
  for (int lane = 0; lane < LANES; ++lane) result += sum[lane];
  return result;
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
  return total(sum);
}

// One thread's operations: PASSES × KC × MR × NV vector multiply-adds on the same operands.
[[gnu::noinline]] float fed_tile(const float* a, const vec* b) {
  vec sum[MR * NV] = {};
  for (int pass = 0; pass < PASSES; ++pass) {
#pragma GCC unroll 2
    for (int k = 0; k < KC; ++k) {
      vec row[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) row[v] = b[k * NV + v];
#pragma GCC unroll 6
      for (int r = 0; r < MR; ++r) {
        const vec x = a[r * KC + k] - vec{};
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[r * NV + v] += x * row[v];
      }
    }
    asm volatile("" ::: "memory");  // or one pass would stand for all
  }
  return total(sum);
}

[[gnu::noinline]] float read(const float* data, size_t count) {
  vec sum[8] = {};
  for (size_t i = 0; i + 8 * LANES <= count; i += 8 * LANES) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sum[j] += *reinterpret_cast<const vec*>(data + i + j * LANES);
  }
  return total(sum);
}

// Most operations a second, in 10⁹, seen in any interval; `work(count)` repeats its operations.
template <class Work>
double best_rate(int threads, double seconds, double operations, Work work) {
  constexpr int repeats = 64;
  double best = 0;
  const double stop = now() + seconds;
  while (now() < stop) {
    const double start = now();
#pragma omp parallel num_threads(threads)
    work(repeats);
    const double rate = operations * repeats * threads / (now() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  return best;
}

volatile float sink = 0;

#if defined(__x86_64__)
constexpr int BF16_STEPS = 2048, BF16_SUMS = 24;
constexpr int TILE_STEPS = 1024, TILES = 4;

// Pairs of bf16 multiplied and added to fp32: BF16_STEPS × BF16_SUMS vectors.
[[gnu::noinline, gnu::target("avx512f,avx512bf16")]] void multiply_add_bf16(int repeats) {
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f8b), b = (__m512bh)_mm512_set1_epi16(0x3a6d);
  __m512 sum[BF16_SUMS];
#pragma GCC unroll 32
  for (int i = 0; i < BF16_SUMS; ++i) sum[i] = _mm512_setzero_ps();
  for (int step = 0; step < BF16_STEPS * repeats; ++step) {
#pragma GCC unroll 32
    for (int i = 0; i < BF16_SUMS; ++i) {
      sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
      asm volatile("" : "+v"(sum[i]));
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < BF16_SUMS; ++i) sink = _mm512_cvtss_f32(sum[i]);
}

struct alignas(64) TileConfig {
  unsigned char palette = 1, start = 0, reserved[14] = {};
  unsigned short row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Products of 16 × 32 by 32 × 16 bf16 in tile registers: TILE_STEPS × TILES of them.
[[gnu::noinline, gnu::target("amx-tile,amx-bf16")]] void multiply_tiles(int repeats) {
  const TileConfig config;
  asm volatile("" : : "r"(&config) : "memory");  // GCC 12 thinks that 8 bytes of it are read
  _tile_loadconfig(&config);
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  unsigned short values[16 * 32];  // of both signs and of any digits: zeros would cost less power
  for (int i = 0; i < 16 * 32; ++i) values[i] = (i * 40503 & 0x807f) | 0x3c00;
  _tile_loadd(4, values, 64); _tile_loadd(5, values, 64);
  _tile_loadd(6, values, 64); _tile_loadd(7, values, 64);
  for (int step = 0; step < TILE_STEPS * repeats; ++step) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

// Linux gives tile registers to a process that asks for them.
bool tiles_permitted() {
  constexpr int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

}  // namespace

extern "C" {

// fp32 multiply-adds from registers, counted as two operations, in GFLOP/s.
double dfc_fma_gflops(int threads, double seconds) {
  return best_rate(threads, seconds, 2.0 * STEPS * SUMS * LANES, [](int repeats) {
    for (int i = 0; i < repeats; ++i) sink = multiply_add(0.999f);
  });
}

// The same in a register tile of a matrix product whose operands come from the L1, in GFLOP/s.
double dfc_tile_gflops(int threads, double seconds) {
  const double operations = 2.0 * PASSES * KC * MR * NV * LANES;
  return best_rate(threads, seconds, operations, [](int repeats) {
    float a[MR * KC];
    vec b[KC * NV];
    for (float& x : a) x = 1e-3f;
    for (vec& x : b) x = 1e-3f - vec{};
    for (int i = 0; i < repeats; ++i) sink = fed_tile(a, b);
  });
}

// bf16 products summed in fp32 by vdpbf16ps, in GFLOP/s.
double dfc_bf16_gflops(int threads, double seconds) {
#if defined(__x86_64__)
  return best_rate(threads, seconds, 2.0 * BF16_STEPS * BF16_SUMS * 32, multiply_add_bf16);
#else
  return 0;
#endif
}

// bf16 products in AMX's tile registers, in GFLOP/s; 0 where Linux does not give them.
double dfc_amx_gflops(int threads, double seconds) {
#if defined(__x86_64__)
  if (!tiles_permitted()) return 0;
  return best_rate(threads, seconds, 2.0 * TILE_STEPS * TILES * 16 * 16 * 32, multiply_tiles);
#else
  return 0;
#endif
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
