// Kernels that begin while the kernel before them still runs: programmatic dependent launch, sm_90.
//
//   A   blocks ──────────────────▶ done, written          B is launched when every block of A has
//            │ all have begun        │                    said `let_successor_begin` or has ended;
//   B        └▶ begins, reads weights └▶ goes on          it waits until A is done and its writes
//                 │ all have begun                        are seen. C can begin while A still runs
//   C             └▶ begins, reads weights … waits for B
//
// The rule. `wait_for_predecessor` waits for the kernel before, and for no other. So
//   1. every thread of a kernel that is launched this way waits, before it reads what any kernel of
//      the call writes, and before it writes at all: an earlier kernel may still read there;
//   2. no kernel may leave it out, even one that needs nothing of A: B that ends without having
//      waited may end before A, and C, which waited for B alone, would read what A has not written;
//   3. before it waits, a kernel reads the weights of a program and nothing else in global memory;
//   4. what is read after it comes by coherent loads: no ld.global.nc, and so no __ldg and no
//      `const … __restrict__` parameters, which promise that nothing is written while the kernel
//      is there. Weights may.
//
// Kernels obey by taking their parameters as Awaited<P>: P is had by waiting, or by asking for it
// `early`. `launch` begins kernels with such a parameter early, and all others after the one before
// has ended. What DaCe generates waits in its first line (`codegen/kernel_overlap.py`).
//
// No block waits for one that cannot run: B's blocks are placed when all of A's are, so they never
// take the place of one. They hold registers and shared memory that no block of A can use any more.
//
// Source: PTX ISA 9.0, griddepcontrol; CUDA C++ Programming Guide, "Programmatic Dependent Launch
// and Synchronization".
#pragma once

#include "ptx.h"

namespace dfc::cuda {

// Whether kernels begin before their predecessor has ended, on the device that this code is for.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr bool BEGINS_EARLY = false;
#else
inline constexpr bool BEGINS_EARLY = true;
#endif

// The kernel's successor may begin from here on, and this one goes on when its predecessor is done.
//
// The successor is let in first: its own wait is for all of this kernel, so it only comes to its
// prologue and its weights sooner.
__device__ inline void follow_predecessor() {
  let_successor_begin();
  wait_for_predecessor();
}

// Parameters that lead to memory which an earlier kernel may still read or write.
template <class P>
class Awaited {
 public:
  Awaited(const P& parameters) : parameters_(parameters) {}

  // The parameters, when all that was launched before is done. Every thread calls it.
  __device__ const P& wait() const {
    follow_predecessor();
    return parameters_;
  }

  // The parameters before that: for extents, and for weights.
  __device__ const P& early() const { return parameters_; }

 private:
  P parameters_;
};

template <class T>
inline constexpr bool is_awaited = false;
template <class P>
inline constexpr bool is_awaited<Awaited<P>> = true;

}  // namespace dfc::cuda
