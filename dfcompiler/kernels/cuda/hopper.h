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

#define DFC_WGMMA(type) \
  asm volatile( \
    "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
    "%64, %65, 1, 1, 1, 0, %66;" \
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
      "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
      "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
      "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
      "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]) \
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

}  // namespace dfc::cuda
