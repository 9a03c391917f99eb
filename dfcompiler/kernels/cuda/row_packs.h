// Rows in packs of 16 bytes: loaded, stored, and kept in the registers of the threads that share one.
//
//     row   ┌ 16 bytes ┬ 16 bytes ┬ … ┬─────────┬ … ┐    thread t holds packs t, t + THREADS, …,
//           │ thread 0 │ thread 1 │   │ thread 0│   │    PACKS of them
//           └──────────┴──────────┴───┴─────────┴───┘
//
// A row that is Whole consists of aligned packs: this is decided once for a row and all that is read
// and written beside it, so that no branch stands between two loads and all packs of a thread are
// under way at the same time. A Careful row moves element by element.
//
// Bytes: what a row has beyond PACKS packs a thread is read again in each pass, from the L2.
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

// Elements of a pack.
template <class T>
inline constexpr int PACK = 16 / sizeof(T);

// How many elements a load takes: a full pack at an aligned address, or a number.
struct Whole {};
using Careful = int;

// Whether packs at these addresses are single transactions; null is read by nobody.
template <class... P>
__device__ inline bool are_aligned(const P*... p) {
  return ((reinterpret_cast<std::uintptr_t>(p) | ... | 0) & 15) == 0;
}

// A pack, widened. V elements may be a part of 16 bytes, then they move in what they fill.
template <class A, int V, class T>
__device__ inline void load_pack(A (&values)[V], const T* p, Whole) {
  constexpr int BYTES = V * sizeof(T);
  T pack[V];
  if constexpr (BYTES % 16 == 0) {
#pragma unroll
    for (int i = 0; i < BYTES / 16; ++i) {
      const uint4 bits = reinterpret_cast<const uint4*>(p)[i];
      memcpy(reinterpret_cast<char*>(pack) + 16 * i, &bits, 16);
    }
  } else if constexpr (BYTES == 8) {
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    memcpy(pack, &bits, 8);
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e) pack[e] = p[e];
  }
#pragma unroll
  for (int e = 0; e < V; ++e) values[e] = A(pack[e]);
}

// The first `count` elements at p, widened; zeros in place of the others.
template <class A, int V, class T>
__device__ inline void load_pack(A (&values)[V], const T* p, Careful count) {
#pragma unroll
  for (int e = 0; e < V; ++e) values[e] = e < count ? A(p[e]) : A(0);
}

template <class A, int V, class T>
__device__ inline void store_pack(T* p, const A (&values)[V], Whole) {
  static_assert(V * sizeof(T) == 16);
  T pack[V];
#pragma unroll
  for (int e = 0; e < V; ++e) pack[e] = T(values[e]);
  uint4 bits;
  memcpy(&bits, pack, sizeof bits);
  *reinterpret_cast<uint4*>(p) = bits;
}

template <class A, int V, class T>
__device__ inline void store_pack(T* p, const A (&values)[V], Careful count) {
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (e < count) p[e] = T(values[e]);
  }
}

// A row in memory as a function of packs.
template <class T>
struct InMemory {
  const T* data;
  template <class A, int V, class Count>
  __device__ void operator()(A (&values)[V], std::int64_t first, Count count) const {
    load_pack(values, data + first, count);
  }
};

// A row, and how its THREADS neighbours along x share it: up to PACKS packs each stay in registers.
template <int THREADS_, int PACKS_, class Source>
struct Row {
  static constexpr int THREADS = THREADS_, PACKS = PACKS_;
  Source source;
  bool aligned;  // every operand
};

template <int THREADS, int PACKS, class T>
__device__ Row<THREADS, PACKS, InMemory<T>> row_of(const T* data) {
  return {{data}, are_aligned(data)};
}

// A row that `source` computes from operands, which are aligned or not.
template <int THREADS, int PACKS, class Source>
__device__ Row<THREADS, PACKS, Source> row_of(bool aligned, const Source& source) {
  return {source, aligned};
}

// What this thread has of a row of n elements, all of it Whole or all of it Careful.
template <class T, class Count, class R>
class Held {
 public:
  using A = accumulator<T>;
  static constexpr int V = PACK<T>, THREADS = R::THREADS, PACKS = R::PACKS;
  static constexpr bool WHOLE = std::is_same_v<Count, Whole>;

  __device__ Held(const R& row, std::int64_t n) : row_(row), n_(n) {
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      if constexpr (WHOLE) {
        // Beyond the end the last pack once more, which nobody looks at: loads stay free of branches.
        const std::int64_t last = n_ - V;
        row_.source(values_[p], first(p) < last ? first(p) : last, Whole{});
      } else if (first(p) < n_) {
        row_.source(values_[p], first(p), careful(first(p)));
      }
    }
  }

  // visit(values, first, count, held) for each of this thread's packs; `held`: values stay as visit
  // leaves them.
  template <class Visit>
  __device__ void each(const Visit& visit) {
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      if (first(p) < n_) visit(values_[p], first(p), valid(first(p)), std::true_type{});
    }
    for (std::int64_t i = first(PACKS); i < n_; i += THREADS * V) {
      A again[V];
      row_.source(again, i, count(i));
      visit(again, i, valid(i), std::false_type{});
    }
  }

  // combine(… combine(initial, map(x₀)) …, map(xₖ)) of this thread's elements.
  template <class Map, class Combine>
  __device__ A fold(A initial, const Map& map, const Combine& combine) {
    A total = initial;
    each([&](const A(&values)[V], std::int64_t, int valid, auto) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if (e < valid) total = combine(total, map(values[e]));
      }
    });
    return total;
  }

  // The same; elements in registers become map(x).
  template <class Map, class Combine>
  __device__ A fold_in_place(A initial, const Map& map, const Combine& combine) {
    A total = initial;
    each([&](A(&values)[V], std::int64_t, int valid, auto) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        values[e] = map(values[e]);
        if (e < valid) total = combine(total, values[e]);
      }
    });
    return total;
  }

  // o[i …] = map(values, i, count, held), pack by pack.
  template <class Map>
  __device__ void store(T* o, const Map& map) {
    each([&](const A(&values)[V], std::int64_t i, int, auto held) {
      A mapped[V];
      map(mapped, values, i, count(i), held);
      store_pack(o + i, mapped, count(i));
    });
  }

 private:
  __device__ std::int64_t first(int pack) const {
    return (std::int64_t(pack) * THREADS + threadIdx.x) * V;
  }
  __device__ int careful(std::int64_t i) const { return n_ - i < V ? int(n_ - i) : V; }
  __device__ int valid(std::int64_t i) const {
    if constexpr (WHOLE) return V;
    else return careful(i);
  }
  __device__ Count count(std::int64_t i) const {
    if constexpr (WHOLE) return Whole{};
    else return careful(i);
  }

  const R& row_;
  std::int64_t n_;
  A values_[PACKS][V];
};

// body(held) with what this thread has of the row; `others` is what is written and read beside it.
template <class T, class R, class Body, class... P>
__device__ void hold(const R& row, std::int64_t n, const Body& body, const P*... others) {
  if (n % PACK<T> == 0 && n > 0 && row.aligned && are_aligned(others...)) {
    Held<T, Whole, R> held(row, n);
    body(held, Whole{});
  } else {
    Held<T, Careful, R> held(row, n);
    body(held, Careful{});
  }
}

}  // namespace rows
}  // namespace dfc
