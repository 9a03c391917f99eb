// Barriers in shared memory that count arrivals and bytes (mbarrier), for sm_90.
//
//   phase          0            1            2         a phase ends when all arrivals have come
//   parity         0            1            0         and all expected bytes are copied; the next
//               ────────▶│────────────▶│──────────▶    begins at once, with the same arrivals
//   wait(0)      blocks      passes       blocks       wait(p): until the last phase of parity p
//   wait(1)      passes      blocks       passes       has ended: the running one or that before
//
// A thread that waits must know which phase it means: it may be one behind the barrier, never two.
// With a ring of stages that is so when the phase of a stage cannot end before those that wait have
// released the stage (`empty` barriers); before the first phase, wait(1) passes.
//
// Source: PTX ISA 9.0, "Parallel Synchronization and Communication Instructions: mbarrier".
#pragma once

#include "ptx.h"

namespace dfc::cuda {

// A barrier; it lies in shared memory. All calls are of single threads.
struct alignas(8) Barrier {
  unsigned long long word;

  // Begins phase 0. By one thread, before `fence_barriers` and a barrier of the block.
  __device__ void init(unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :
                 : "r"(shared_address(&word)), "r"(arrivals)
                 : "memory");
  }

  // One arrival. What this thread did before is seen by those that wait.
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                 :
                 : "r"(shared_address(&word))
                 : "memory");
  }

  // One arrival of a phase that also waits for so many bytes of copies, which are started after it.
  // A phase holds less than 2^20 bytes.
  __device__ void arrive_expecting(unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(shared_address(&word)), "r"(bytes)
                 : "memory");
  }

  // Returns when the phase of that parity has ended; what led to its end is seen then.
  __device__ void wait(unsigned parity) {
    unsigned done = 0;
    while (done == 0) {
      // try_wait sleeps for a while that the hardware chooses before it gives 0.
      asm volatile(
          "{\n"
          ".reg .pred ended;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
          "selp.u32 %0, 1, 0, ended;\n"
          "}"
          : "=r"(done)
          : "r"(shared_address(&word)), "r"(parity)
          : "memory");
    }
  }
};

// After `init` by the same thread: copies (the async proxy) see the barriers. A barrier of the
// block comes after it.
__device__ inline void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace dfc::cuda
