// Rows in packs of 16 bytes: loaded, stored, and kept in the registers of a block.
//
//     row   ┌ 16 bytes ┬ 16 bytes ┬ … ┬─────────┬ … ┐    thread t holds packs t, t + threads, …
//           │ thread 0 │ thread 1 │   │ thread 0│   │    in registers, up to HELD elements
//           └──────────┴──────────┴───┴─────────┴───┘
//
// Bytes: what a row has beyond HELD · threads elements is read again in each pass, from the L2; a
// warp's packs are whole 512-byte transactions. Where a row is not aligned to 16 bytes, the same
// threads read the same elements one by one.
//
// A row is a pointer, or a function row(values, first, count) that computes `count` elements of it
// from `first` on: what is fused in front of a normalization never leaves the registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace dfc {

// The type in which sums over elements of T are kept.
template <class T>
using accumulator = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

namespace rows {

// Elements of a pack, and of a row in the registers of one thread.
template <class T>
inline constexpr int PACK = 16 / sizeof(T);
inline constexpr int HELD = 16;

__device__ inline bool is_aligned(const void* p) {
  return (reinterpret_cast<std::uintptr_t>(p) & 15) == 0;
}

// The first `count` elements at p, widened; zeros in place of the others.
template <class A, int V, class T>
__device__ inline void load_pack(A (&values)[V], const T* p, int count) {
  if constexpr (V == PACK<T>) {
    if (count == V && is_aligned(p)) {
      const uint4 bits = *reinterpret_cast<const uint4*>(p);
      T pack[V];
      memcpy(pack, &bits, sizeof bits);
#pragma unroll
      for (int e = 0; e < V; ++e) values[e] = A(pack[e]);
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) values[e] = e < count ? A(p[e]) : A(0);
}

template <class A, int V, class T>
__device__ inline void store_pack(T* p, const A (&values)[V], int count) {
  if constexpr (V == PACK<T>) {
    if (count == V && is_aligned(p)) {
      T pack[V];
#pragma unroll
      for (int e = 0; e < V; ++e) pack[e] = T(values[e]);
      uint4 bits;
      memcpy(&bits, pack, sizeof bits);
      *reinterpret_cast<uint4*>(p) = bits;
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (e < count) p[e] = T(values[e]);
  }
}

// A row in memory as a function of packs.
template <class T>
struct InMemory {
  const T* data;
  template <class A, int V>
  __device__ void operator()(A (&values)[V], std::int64_t first, int count) const {
    load_pack(values, data + first, count);
  }
};

template <class Row>
__device__ auto source_of(const Row& row) {
  if constexpr (std::is_pointer_v<Row>) {
    return InMemory<std::remove_const_t<std::remove_pointer_t<Row>>>{row};
  } else {
    return row;
  }
}

// The block's row of n elements: what this thread has of it.
template <class T, class Source>
class Held {
 public:
  using A = accumulator<T>;
  static constexpr int V = PACK<T>, PACKS = HELD / V > 0 ? HELD / V : 1;

  __device__ Held(const Source& source, std::int64_t n) : source_(source), n_(n) {
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      if (first(p) < n_) source_(values_[p], first(p), count(first(p)));
    }
  }

  // visit(values, first, count) for each of this thread's packs.
  template <class Visit>
  __device__ void each(const Visit& visit) const {
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      if (first(p) < n_) visit(values_[p], first(p), count(first(p)));
    }
    for (std::int64_t i = first(PACKS); i < n_; i += std::int64_t(blockDim.x) * V) {
      A again[V];
      source_(again, i, count(i));
      visit(again, i, count(i));
    }
  }

  // combine(… combine(initial, map(x₀)) …, map(xₖ)) of this thread's elements.
  template <class Map, class Combine>
  __device__ A fold(A initial, const Map& map, const Combine& combine) const {
    A total = initial;
    each([&](const A(&values)[V], std::int64_t, int valid) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if (e < valid) total = combine(total, map(values[e]));
      }
    });
    return total;
  }

  // o[i] = map(i, x[i]).
  template <class Map>
  __device__ void store(T* o, const Map& map) const {
    each([&](const A(&values)[V], std::int64_t i, int valid) {
      A mapped[V];
      map(mapped, values, i, valid);
      store_pack(o + i, mapped, valid);
    });
  }

 private:
  __device__ std::int64_t first(int pack) const {
    return (std::int64_t(pack) * blockDim.x + threadIdx.x) * V;
  }
  __device__ int count(std::int64_t i) const { return n_ - i < V ? int(n_ - i) : V; }

  const Source& source_;
  std::int64_t n_;
  A values_[PACKS][V];
};

}  // namespace rows
}  // namespace dfc
