// A consumer of attention by wgmma: one warp group, 64 rows, the online softmax between products.
//
//   tensor cores   S₀  │ S₁  O₀ │ S₂  O₁ │ …  │ Oₙ     S₁: scores of tile 1, O₀: + weights · values
//   this group       ──┤ softmax₁ ├ softmax₂ ├──         of tile 0
//
// The scores of the next tile and the output of the present one are started together; the softmax
// of the former runs beside the latter and beside what the other groups have started. So that they
// do that one after the other, groups take turns at starting (named barriers 1, 2, …): group w waits
// for its turn, starts both products, and passes it to group w + 1, the last one to group 0.
#pragma once

#include "attention_tiled.cuh"
#include "attention_wgmma_walk.cuh"
#include "warp_group.h"

namespace dfc::cuda::flash {

template <class Shape, class T, class M, bool CAUSAL>
class WgmmaRows {
  using Products = WgmmaProducts<Shape, T>;
  static constexpr int SCORES = Products::OWN_SCORES, COLUMNS = Products::OWN_COLUMNS;

 public:
  // `first`: of the block's rows; `group` of its consumers.
  __device__ WgmmaRows(const Head<T, M>& head, WgmmaShared<Shape>& shared, int first, int group)
      : head_(head), shared_(shared), first_(first + 64 * group), group_(group) {
    scale_ = head.p.scale * LOG2_E;
    least_reach_ = head.template reach<CAUSAL>(seen(first_));
#pragma unroll
    for (int r = 0; r < 2; ++r) sight_[r] = sight_of<CAUSAL>(head, seen(row(r)));
  }

  // All tiles of the walk that begins with tile n, whose note is there, and the rows of o. Returns
  // the number of the tile behind them. `query_parity`: of the phase that brings Q.
  __device__ int run(Note note, int n, unsigned query_parity) {
    if (note.end > 0) n = walk(note, n, query_parity);
    else skip(n);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = total_[r].sum;
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      total_[r].sum = sum;
      if (row(r) < head_.rows)
        put_row(own_, r, head_.o(row(r)), total_[r].inverse(), int(head_.p.value_width));
    }
    return n + 1;
  }

  __device__ static void take_turn(int group) { sync_at(1 + group, 256); }
  __device__ static void pass_turn(int group) {
    arrive_at(group + 1 == Shape::CONSUMERS ? 1 : 2 + group, 256);
  }

 private:
  __device__ int row(int r) const { return first_ + Products::row(r); }
  // In place of a row behind the last one, that one again.
  __device__ int seen(int row) const { return min(row, head_.rows - 1); }

  // A note without a tile.
  __device__ void skip(int n) {
    const Slot<Shape::STAGES> slot(n);
    release(shared_.keys_free[slot.stage]);
    shared_.values_there[slot.stage].wait(slot.parity);
    release(shared_.values_free[slot.stage]);
  }

  // Returns the number of the last tile.
  __device__ int walk(Note note, int n, unsigned query_parity) {
    float factors[2];
    shared_.queries_there.wait(query_parity);
    take_turn(group_);
    start_scores(Slot<Shape::STAGES>(n).stage);
    pass_turn(group_);
    own_.template wait_for_scores<0>();
    release(shared_.keys_free[Slot<Shape::STAGES>(n).stage]);
    if (note.last) release(shared_.queries_free);
    weigh(note, factors);
    own_.keep_weights();
    for (; !note.last; ++n) {
      const Slot<Shape::STAGES> next(n + 1);
      shared_.keys_there[next.stage].wait(next.parity);
      const Note following = shared_.notes[next.stage];
      take_turn(group_);
      start_scores(next.stage);
      start_output(n, note);
      pass_turn(group_);
      own_.template wait_for_scores<1>();
      weigh(following, factors);
      // Sums of weights are not negative, but ptxas does not know it. Where nothing depends on the
      // softmax, it waits for the output first, and the two no longer run side by side.
      const bool weighed = !(total_[0].sum + total_[1].sum < 0.0f);
      release(shared_.keys_free[next.stage], weighed);
      if (following.last) release(shared_.queries_free, weighed);
      own_.wait_for_output();
      release(shared_.values_free[Slot<Shape::STAGES>(n).stage]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) own_.output(r, i) *= factors[r];
      }
      own_.keep_weights();
      note = following;
    }
    start_output(n, note);
    own_.wait_for_output();
    release(shared_.values_free[Slot<Shape::STAGES>(n).stage]);
    return n;
  }

  __device__ void start_scores(int stage) {
    own_.start_scores(shared_.queries + group_ * 64 * Shape::BOX_ROW, shared_.keys[stage]);
  }

  __device__ void start_output(int n, const Note& note) {
    const Slot<Shape::STAGES> slot(n);
    shared_.values_there[slot.stage].wait(slot.parity);
    if (note.end < Shape::KEYS && note.first + note.end < head_.p.keys)
      clear_rows(shared_.values[slot.stage], note.end);
    own_.start_output(shared_.values[slot.stage]);
  }

  // Zeros in place of values that nobody sees: times a weight of zero they may be NaN. Every group
  // does this for itself, and all write the same.
  __device__ void clear_rows(unsigned char* values, int from) {
    constexpr int PACKS = Shape::BOX_ROW / 16;
    for (int i = from * PACKS + threadIdx.x % 128; i < Shape::KEYS * PACKS; i += 128) {
#pragma unroll
      for (int box = 0; box < Shape::BOXES; ++box)
        reinterpret_cast<uint4*>(values)[box * Shape::KEYS * PACKS + i] = uint4{0, 0, 0, 0};
    }
    fence_for_copies();
    sync_at(1 + Shape::CONSUMERS + group_, 128);
  }

  // Scores become weights; what was summed before has to shrink by `factors`.
  __device__ void weigh(const Note& note, float (&factors)[2]) {
    const bool whole = note.clear && note.first + Shape::KEYS <= least_reach_ && scale_ > 0.0f;
    if (!whole) hide_scores(note.first);
    // The factor of scores that nothing hides goes into their exponent.
    const float unit = whole ? scale_ : 1.0f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float greatest[2] = {HIDDEN, HIDDEN};
#pragma unroll
      for (int i = 0; i < SCORES; ++i) greatest[i % 2] = fmaxf(greatest[i % 2], own_.score(r, i));
      float peak = fmaxf(greatest[0], greatest[1]);
      peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, 1));
      peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, 2));
      float shift;
      factors[r] = total_[r].raise(peak * unit, shift);
#pragma unroll
      for (int i = 0; i < SCORES; ++i) {
        float& score = own_.score(r, i);
        score = exp2_approximate(fmaf(score, unit, -shift));
        total_[r].sum += score;
      }
    }
  }

  // Scores in units of log2 e, hidden ones -inf.
  __device__ void hide_scores(int key) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int i = 0; i < SCORES; ++i) {
        float& score = own_.score(r, i);
        score = sight_[r](score * scale_, key + Products::key(i), head_.p.mask_strides[3]);
      }
    }
  }

  // This warp no longer reads what the barrier guards, if that is `so`.
  __device__ static void release(Barrier& barrier, bool so = true) {
    __syncwarp();
    if (so && threadIdx.x % 32 == 0) barrier.arrive();
  }

  const Head<T, M>& head_;
  WgmmaShared<Shape>& shared_;
  const int first_, group_;
  int least_reach_;
  float scale_;
  Sight<M> sight_[2];
  Total total_[2];
  Products own_;
};

// All walks of a block, by one of its groups.
template <class Shape, class T, class M, bool CAUSAL>
__device__ inline void consume(const Attention<T, M>& p, const RowTiles& work,
                               WgmmaShared<Shape>& shared, int group) {
  using Rows = WgmmaRows<Shape, T, M, CAUSAL>;
  if (group == Shape::CONSUMERS - 1) Rows::pass_turn(group);  // the first turn
  unsigned query_loads = 0;
  for (int n = 0;;) {
    const Slot<Shape::STAGES> slot(n);
    shared.keys_there[slot.stage].wait(slot.parity);
    const Note note = shared.notes[slot.stage];
    if (note.rows < 0) break;
    const Head<T, M> head(p, work.set(note.rows));
    Rows rows(head, shared, work.first_row(note.rows, Shape::ROWS), group);
    n = rows.run(note, n, query_loads % 2);
    query_loads += note.end > 0;
  }
  if (group == 0) Rows::take_turn(group);  // the turn that nobody needs
}

}  // namespace dfc::cuda::flash
