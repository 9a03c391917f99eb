// Threads of emulated kernels: what device code calls that concerns more than its own thread.
//
//   launch ── block after block ── one fiber for each thread, resumed warp by warp
//                                    │ yields at: collective()  until its lanes have arrived
//                                    │            barrier()     until the block has arrived
//                                    │            wait_until()  until others have done something
//
// A fiber runs until it waits or ends, so every order of threads that this engine takes is one that
// a GPU may take. It takes two, forwards and backwards: where results differ, threads race.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <source_location>
#include <string>

namespace emulation {

using Place = std::source_location;

// Runs once when the lanes of a collective operation have arrived: `lanes` holds what each of them
// handed in, nullptr for lanes that do not take part.
using Complete = void (*)(void* const* lanes);

// Waits until every lane of `mask` has arrived at the same operation, which then is completed.
void collective(const char* operation, Place place, unsigned mask, void* argument, Complete complete);

// Waits until every thread of the block has arrived at this place; how many gave true.
int barrier(const char* operation, Place place, bool predicate);

// Waits until `ready` gives true, which only what another thread notes as progress can change;
// `missing` says for what, where a block comes to a standstill.
void wait_until(const char* operation, Place place, const std::function<bool()>& ready,
                const std::function<std::string()>& missing);
void note_progress();

// A copy into shared memory that is there only after its group has been waited for.
void copy_async(void* to, const void* from, int bytes, int room);
void commit_copies();
void wait_for_copies(int pending);

// Reads a byte: ends the launch where it cannot be read.
void touch(const void* address);

// How a kernel is launched: when the one before it has ended, or earlier.
//
// An early one is run in two parts where threads go forwards: all threads of a block up to here, with
// device memory that faults unless it holds weights, as if the kernel before had not run yet; then
// what comes behind. A thread that ends without having been here ends the launch. Where threads go
// backwards this does nothing, so that nobody takes it for a barrier.
enum class Begins { after, early };
void wait_for_predecessor(Place place = Place::current());

// A product that happens when its group is waited for. The place of its sums is poison until no
// group that adds to them is left; what it adds to is what `claim_sums` gives. It is an error to
// start one without a fence since the thread last got sums back: it may have touched registers.
void fence_sums();
float* claim_sums(float* sums, int count, Place place);
void add_product(std::function<void()> product);
void commit_products();
void wait_for_products(int pending);

// Ends the launch with an error that names the kernel and the thread.
[[noreturn]] void fail(const char* sentence, Place place);

// Counts what the running block takes of shared memory besides its dynamic part; ends the launch
// where it is too much.
void take_shared(std::size_t bytes, Place place);

// The running block: a number that no other block of this process has, and its dynamic memory.
extern unsigned long block_number;
unsigned char* dynamic_shared();

// Bytes where no value has been written: NaN for every floating-point type.
inline constexpr int POISON = 0xff;

// Runs call(arguments) once for each thread of the grid.
cudaError_t launch(const void* kernel, void (*call)(void* arguments), void* arguments, dim3 grid,
                   dim3 block, std::size_t shared_bytes, Begins begins);

// The sentence about the first failure since `clear_message`; empty if there was none.
const char* message();
void set_message(const char* sentence);
void clear_message();

}  // namespace emulation

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
