// The instructions that kernels use beyond C++, each behind one function: nothing else holds PTX.
//
// Functions named mma or ldmatrix are of a whole warp: all 32 lanes call them together. Pointers to
// shared memory are generic ones; they are converted here.
//
// mma_m16n8k16: which elements lane holds, with g = lane / 4, t = lane % 4
//
//   A 16 × 16        columns 2t, 2t+1   2t+8, 2t+9      B 16 × 8       column g
//   row g            a[0]               a[2]            rows 2t, 2t+1      b[0]
//   row g + 8        a[1]               a[3]            rows 2t+8, 2t+9    b[1]
//
//   C 16 × 8         columns 2t, 2t+1
//   row g            c[0], c[1]
//   row g + 8        c[2], c[3]
//
// Source: PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace dfc::cuda {

// The block's dynamic shared memory, from its first byte, 128-byte aligned.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char dfc_dynamic_shared[];
  return dfc_dynamic_shared;
}

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// c += a·b, 16 × 8 × 16, with sums in float. The tag, unused, says what the operands hold.
__device__ inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                    __nv_bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                    __half) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a·b, 16 × 8 × 8, of floats rounded to tf32 (a and b hold the bits that `to_tf32` gives):
// a[0] is row g, column t; a[1] row g + 8; a[2], a[3] the same at column t + 4; b[0] is row t,
// column g; b[1] row t + 4. C as above.
__device__ inline void mma_m16n8k8_tf32(float (&c)[4], const unsigned (&a)[4],
                                        const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned to_tf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// Four 8 × 8 matrices of 16-bit elements: lane 8i + r hands in the address of row r of matrix i, 16
// bytes aligned to 16. r[i] of lane l is elements 2(l % 4), 2(l % 4) + 1 of row l / 4 of matrix i.
__device__ inline void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same of the transposed matrices: elements 2(l % 4), 2(l % 4) + 1 of column l / 4.
__device__ inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Two matrices; lanes 0 to 15 hand in the rows, the others any valid address.
__device__ inline void ldmatrix_x2(unsigned (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// Starts a copy of 16 bytes, both addresses aligned to 16, past the L1. Only the first `bytes`, 0
// to 16, are read; the rest becomes zero. With 0 bytes `global` need not be valid.
__device__ inline void cp_async_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}

// Closes the group of copies that this thread has started since the last one.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups are not yet there.
template <int pending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(pending) : "memory");
}

// 16 bytes that are read once: they take no place in the L1. `global` is aligned to 16.
//
// Not ld.global.nc: the kernel before may write there while this one is there already.
__device__ inline uint4 load_once_16(const void* global) {
  uint4 value;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(global));
  return value;
}

// Brings the bytes at `global` into the L2.
__device__ inline void prefetch_l2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" : : "l"(global));
}

// Waits until the kernel before this one is done and what it wrote can be read; see predecessor.h.
// On devices before sm_90 a kernel begins when that is so.
__device__ inline void wait_for_predecessor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The kernel behind this one may begin when every block has come here or has ended.
__device__ inline void let_successor_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// 2 to the power of value, as the hardware approximates it (relative error 2^-22).
__device__ inline float exp2_approximate(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}

}  // namespace dfc::cuda
