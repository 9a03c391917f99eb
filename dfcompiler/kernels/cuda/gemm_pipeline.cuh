// How the tiles of A and B reach shared memory: a ring of stages, filled ahead of the products.
//
//   step        0     1     2     3           stage = step % STAGES
//             ┌─────┬─────┬─────┐
//   filled    │ A B │ A B │ A B │ ─▶ …        AHEAD steps are on their way while one is multiplied
//             └─────┴─────┴─────┘
//   multiplied   ▲
//
// Each step is one group of cp.async, an empty one behind the last step: to wait for a step is to
// wait until all but the AHEAD - 1 youngest groups are there. A stage is filled again only behind
// the barrier that all threads reach after they are done with it.
//
// Tiles of B that is a weight are on their way before the kernel waits for its predecessor: their
// copies are of the first group then.
#pragma once

#include "gemm_finish.cuh"
#include "gemm_tile.cuh"

namespace dfc::cuda {

// The steps of k that one block has. TileA and TileB give ELEMENTS and `fill` as OperandTile does.
template <class S, class T, class TileA, class TileB, int AHEAD>
class OperandPipeline {
 public:
  // `shared` has room for STAGES tiles of A and B.
  __device__ OperandPipeline(const Gemm<T>& p, const Split& split, const TilePlace& at, T* shared)
      : p_(p), at_(at), shared_(shared) {
    const long k0 = at.part * split.depth;
    depth_ = k0 + split.depth < p.K ? split.depth : p.K - k0;
    a_ = p.a + at.batch * p.a_batch + at.row * p.a_row + k0 * p.a_col;
    b_ = p.b + at.batch * p.b_batch + at.column * p.b_col + k0 * p.b_row;
  }

  __device__ int steps() const { return static_cast<int>((depth_ + S::BK - 1) / S::BK); }
  __device__ const T* a(int step) const { return tile(step); }
  __device__ const T* b(int step) const { return tile(step) + TileA::ELEMENTS; }

  // Starts B of the first AHEAD steps where no kernel writes it: before the predecessor is waited
  // for, and nothing else is.
  __device__ void start_weights() {
    if constexpr (BEGINS_EARLY) {
      if (!p_.b_is_weight) return;
      for (int step = 0; step < AHEAD && step < steps(); ++step) fill_b(step);
      b_started_ = true;
    }
  }
  // Starts the first AHEAD steps, or what is missing of them.
  __device__ void start() const {
    for (int step = 0; step < AHEAD; ++step) {
      if (step < steps()) {
        fill_a(step);
        if (!b_started_) fill_b(step);
      }
      cp_async_commit();
    }
  }
  // Starts what is AHEAD of a step.
  __device__ void fill_ahead_of(int step) const {
    if (step + AHEAD < steps()) {
      fill_a(step + AHEAD);
      fill_b(step + AHEAD);
    }
    cp_async_commit();
  }
  // Waits for what this thread copies of the next step; a barrier comes after it.
  __device__ void wait() const { cp_async_wait<AHEAD - 1>(); }

  // multiply(a, b) for the tiles of each step, by all threads.
  template <class Multiply>
  __device__ void each_step(const Multiply& multiply) const {
    start();
    for (int step = 0; step < steps(); ++step) {
      wait();
      __syncthreads();
      fill_ahead_of(step);
      multiply(a(step), b(step));
    }
  }

 private:
  __device__ T* tile(int step) const {
    return shared_ + step % S::STAGES * (TileA::ELEMENTS + TileB::ELEMENTS);
  }

  __device__ void fill_a(int step) const {
    const long k = static_cast<long>(step) * S::BK;
    TileA::fill(tile(step), a_ + k * p_.a_col, p_.a_row, p_.a_col, p_.M - at_.row, depth_ - k);
  }

  __device__ void fill_b(int step) const {
    const long k = static_cast<long>(step) * S::BK;
    TileB::fill(tile(step) + TileA::ELEMENTS, b_ + k * p_.b_row, p_.b_col, p_.b_row,
                p_.N - at_.column, depth_ - k);
  }

  const Gemm<T>& p_;
  const TilePlace& at_;
  long depth_;
  const T *a_, *b_;
  T* shared_;
  bool b_started_ = false;
};

}  // namespace dfc::cuda
