// Products of a warp group (wgmma), which only sm_90a has, each behind one function.
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
// A from registers: a[i] of a thread are two elements, in the places of mma_m16n8k16 (ptx.h) among
// the 16 rows of its warp. So sums d[8s] to d[8s + 7] become, rounded in pairs, a[0] to a[3] of the
// 16 steps of k from 16s on: d of one product is A of the next without an exchange.
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

// Before the first wgmma on registers that something else has touched, A's among them.
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
template <int count>
__device__ inline void keep_in_place(float (&sums)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}
template <int products, int count>
__device__ inline void keep_in_place(float (&sums)[products][count]) {
#pragma unroll
  for (int j = 0; j < products; ++j) keep_in_place(sums[j]);
}

#define DFC_SUMS_8(i)                                                                             \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),     \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define DFC_SUMS_32(i) DFC_SUMS_8(i), DFC_SUMS_8(i + 8), DFC_SUMS_8(i + 16), DFC_SUMS_8(i + 24)
#define DFC_SUMS_64(i) DFC_SUMS_32(i), DFC_SUMS_32(i + 32)
#define DFC_SUMS_128(i) DFC_SUMS_64(i), DFC_SUMS_64(i + 64)
#define DFC_NAMES_32                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                        \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DFC_NAMES_64                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                        \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "              \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "              \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DFC_NAMES_128                                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                        \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "              \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "              \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "              \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "              \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "              \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "  \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// d = (add ? d : 0) + a·b, 64 × 16 times 16 × 2·count, from shared memory; or A from registers that
// stay as they are until the product is waited for. The tag, unused, says what operands hold. The
// numbers are those of the inputs in the text, behind the sums.
#define DFC_PRODUCTS(columns, sums, T, type, i0, i1, i2, i3, i4, i5, i6)                          \
  template <bool transposed_b>                                                                    \
  __device__ inline void wgmma_m64k16(float (&d)[sums], Descriptor a, Descriptor b, T, bool add) {\
    asm volatile(                                                                                 \
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #i2 ", 0;\n"                                   \
        "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {"                \
        DFC_NAMES_##sums "}, %" #i0 ", %" #i1 ", adds, 1, 1, 0, %" #i3 ";\n}"                     \
        : DFC_SUMS_##sums(0)                                                                      \
        : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(transposed_b));                         \
  }                                                                                               \
  template <bool transposed_b>                                                                    \
  __device__ inline void wgmma_m64k16(float (&d)[sums], const unsigned (&a)[4], Descriptor b, T,  \
                                      bool add) {                                                 \
    asm volatile(                                                                                 \
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #i5 ", 0;\n"                                   \
        "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {"                \
        DFC_NAMES_##sums "}, {%" #i0 ", %" #i1 ", %" #i2 ", %" #i3 "}, %" #i4                     \
        ", adds, 1, 1, %" #i6 ";\n}"                                                              \
        : DFC_SUMS_##sums(0)                                                                      \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),         \
          "n"(transposed_b));                                                                     \
  }

DFC_PRODUCTS(64, 32, __nv_bfloat16, "bf16", 32, 33, 34, 35, 36, 37, 38)
DFC_PRODUCTS(64, 32, __half, "f16", 32, 33, 34, 35, 36, 37, 38)
DFC_PRODUCTS(128, 64, __nv_bfloat16, "bf16", 64, 65, 66, 67, 68, 69, 70)
DFC_PRODUCTS(128, 64, __half, "f16", 64, 65, 66, 67, 68, 69, 70)
DFC_PRODUCTS(256, 128, __nv_bfloat16, "bf16", 128, 129, 130, 131, 132, 133, 134)
DFC_PRODUCTS(256, 128, __half, "f16", 128, 129, 130, 131, 132, 133, 134)
#undef DFC_PRODUCTS
#undef DFC_NAMES_32
#undef DFC_NAMES_64
#undef DFC_NAMES_128
#undef DFC_SUMS_8
#undef DFC_SUMS_32
#undef DFC_SUMS_64
#undef DFC_SUMS_128

}  // namespace dfc::cuda
