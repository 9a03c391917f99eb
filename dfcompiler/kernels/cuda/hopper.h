// Instructions that only sm_90a has: products of a warp group (wgmma), each behind one function.
//
// A warp group is four warps, 128 threads, that call together. Operands lie in shared memory, as
// rows of 128 bytes whose 16-byte chunks are permuted by the row (the "128-byte swizzle", which is
// `swizzled<8>` of gemm_tile.cuh); 8 such rows are a group of 1024 bytes, aligned to that.
//
//   k contiguous (A, and B "along depth")      n contiguous (B "along width": transposed_b)
//
//        64 elements of k                            64 elements of n     next 64: + leading
//      ┌───────────────────┐                       ┌───────────────────┐
//    m │ 8 rows, 1024 bytes│                     k │ 8 rows, 1024 bytes│
//      ├───────────────────┤ + stride              ├───────────────────┤ + stride
//      │ the next 8 rows   │                       │ the next 8 steps  │
//
// The sums of thread i, with w = i / 32 % 4, g = i % 32 / 4, t = i % 4: d[4j], d[4j + 1] are row
// 16w + g, columns 8j + 2t and 8j + 2t + 1; d[4j + 2], d[4j + 3] the same of row 16w + g + 8.
//
// Source: PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once

#include "ptx.h"

namespace dfc::cuda {

// Where an operand lies. Bits 0-13: address / 16; 16-29 and 32-45: leading and stride bytes / 16;
// 62-63: the swizzle, 1 for 128 bytes.
using Descriptor = unsigned long long;

__device__ inline Descriptor make_descriptor(const void* first, int leading, int stride) {
  auto field = [](unsigned bytes) { return static_cast<Descriptor>((bytes & 0x3ffff) >> 4); };
  return field(shared_address(first)) | field(leading) << 16 | field(stride) << 32 |
         Descriptor{1} << 62;
}

// The operand that begins `bytes` later, in the same group of rows or whole groups further on.
__device__ inline Descriptor advanced(Descriptor from, int bytes) { return from + (bytes >> 4); }

// The first address from `bytes` on that is aligned to 1024 in shared memory.
__device__ inline unsigned char* aligned_1024(unsigned char* bytes) {
  return bytes + (1024 - shared_address(bytes) % 1024) % 1024;
}

// Makes what this thread wrote to shared memory, by cp.async too, visible to wgmma; a barrier
// between the threads comes after it.
__device__ inline void fence_for_wgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before the first wgmma on registers that something else has touched.
__device__ inline void wgmma_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `pending` groups of this warp group are not yet done.
template <int pending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(pending) : "memory");
}

// What happens to sums on either side of this call stays there: the compiler does not know that a
// wgmma still writes them until it is waited for, and might move arithmetic on them across the wait.
template <int products>
__device__ inline void keep_in_place(float (&sums)[products][64]) {
#pragma unroll
  for (int j = 0; j < products; ++j) {
#pragma unroll
    for (int i = 0; i < 64; ++i) asm volatile("" : "+f"(sums[j][i])::"memory");
  }
}

#define DFC_SUMS(i)                                                                               \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),     \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define DFC_WGMMA(type)                                                                           \
  asm volatile(                                                                                   \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                           \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                    \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "          \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "          \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "         \
      "%64, %65, 1, 1, 1, 0, %66;"                                                                \
      : DFC_SUMS(0), DFC_SUMS(8), DFC_SUMS(16), DFC_SUMS(24), DFC_SUMS(32),                       \
        DFC_SUMS(40), DFC_SUMS(48), DFC_SUMS(56)                                                  \
      : "l"(a), "l"(b), "n"(transposed_b))

// d += a·b, 64 × 128 × 16. The tag, unused, says what the operands hold.
template <bool transposed_b>
__device__ inline void wgmma_m64n128k16(float (&d)[64], Descriptor a, Descriptor b, __nv_bfloat16) {
  DFC_WGMMA("bf16");
}
template <bool transposed_b>
__device__ inline void wgmma_m64n128k16(float (&d)[64], Descriptor a, Descriptor b, __half) {
  DFC_WGMMA("f16");
}
#undef DFC_WGMMA
#undef DFC_SUMS

}  // namespace dfc::cuda
