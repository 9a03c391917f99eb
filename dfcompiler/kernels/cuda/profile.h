// When each operator of a call was done, by events on its stream: artifacts that measure only.
//
//     stream   event 0 │ kernels of operator a │ event 1 │ kernels of operator b │ event 2 │ …
//
// An operator's time is that between the events around its launches: its kernels, the gaps in front of
// them, and what the stream waited for the host. An event takes the stream about half a microsecond,
// which is also how finely they tell times apart. Operators in loops add up.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

namespace dfc::cuda {

// The events of one instance, made once and kept from call to call.
class Profile {
 public:
  ~Profile() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  // Begins a call of `operators`, with an event for each of them.
  cudaError_t begin(std::size_t operators, cudaStream_t stream) {
    ends_.clear();
    while (events_.size() < operators + 1) {
      if (const cudaError_t error = make_event()) return error;
    }
    return cudaEventRecord(events_[0], stream);
  }

  // All launches of an operator are on the stream.
  cudaError_t end(int number, cudaStream_t stream) {
    ends_.push_back(number);
    if (events_.size() == ends_.size()) {
      if (const cudaError_t error = make_event()) return error;
    }
    return cudaEventRecord(events_[ends_.size()], stream);
  }

  // Adds up the seconds of each operator, once the stream is done.
  cudaError_t read(double* seconds, std::size_t operators) const {
    for (std::size_t i = 0; i < operators; ++i) seconds[i] = 0;
    for (std::size_t i = 0; i < ends_.size(); ++i) {
      float elapsed_ms = 0;
      const cudaError_t error = cudaEventElapsedTime(&elapsed_ms, events_[i], events_[i + 1]);
      if (error != cudaSuccess) return error;
      seconds[ends_[i]] += elapsed_ms * 1e-3;
    }
    return cudaSuccess;
  }

 private:
  cudaError_t make_event() {
    cudaEvent_t made = nullptr;
    const cudaError_t error = cudaEventCreate(&made);
    if (error == cudaSuccess) events_.push_back(made);
    return error;
  }

  std::vector<cudaEvent_t> events_;
  std::vector<int> ends_;  // the operator that event i + 1 ends
};

// Of the instance whose call this thread makes; set before the program is called.
inline Profile*& current_profile() {
  static thread_local Profile* current = nullptr;
  return current;
}

}  // namespace dfc::cuda
