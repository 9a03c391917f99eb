// The producer of attention by wgmma: which tiles of keys a block walks, and their copies by TMA.
//
//   queries   │ Q              │  once
//   stage 0   │ K │ V │ note   │  tile n is multiplied       K and V have barriers of their own: the
//   stage 1   │ K │ V │ note   │  tile n + 1 is on its way   scores of tile n + 1 are started before
//                                                            the values of tile n are done with
//
// The walk is from the last tile that the block sees to the first. A tile that a shared mask hides
// is not read; what else there is to know of a tile is its note, written before its keys arrive.
#pragma once

#include "attention_keys.cuh"
#include "attention_wgmma_products.cuh"
#include "tma.h"

namespace dfc::cuda::flash {

// What consumers are told of a tile.
//
// Attributes:
//   first: its first key.
//   end: keys from first + end on are not seen by any row; 0: no row sees any key at all.
//   clear: no mask does anything to it.
//   last: no tile comes after it.
struct __align__(16) Note {
  int first, end;
  bool clear, last;
};

// What TMA reads, as (element, head, row, batch).
struct AttentionMaps {
  TensorMap q, k, v;
};

template <class Shape>
struct WgmmaShared {
  unsigned char queries[Shape::QUERY_BYTES];
  unsigned char keys[Shape::STAGES][Shape::TILE_BYTES];
  unsigned char values[Shape::STAGES][Shape::TILE_BYTES];
  Note notes[Shape::STAGES];
  Barrier queries_there;
  Barrier keys_there[Shape::STAGES], keys_free[Shape::STAGES];
  Barrier values_there[Shape::STAGES], values_free[Shape::STAGES];

  // By one thread, before a barrier of the block.
  __device__ void init() {
    queries_there.init(1);
    for (int i = 0; i < Shape::STAGES; ++i) {
      keys_there[i].init(1);
      values_there[i].init(1);
      keys_free[i].init(4 * Shape::CONSUMERS);  // each warp
      values_free[i].init(4 * Shape::CONSUMERS);
    }
    fence_barriers();
  }
};

// Where the n-th tile of a walk lies, and the parity of the phase in which it does.
template <int STAGES>
struct Slot {
  int stage;
  unsigned parity;

  __device__ explicit Slot(int n) : stage(n % STAGES), parity(n / STAGES % 2) {}
};

// One warp.
template <class Shape, class T, class M>
class TileProducer {
 public:
  // `sets`: heads of `head` that read one key head. `reach`: of the block's last row.
  __device__ TileProducer(const Head<T, M>& head, const AttentionMaps& maps,
                          WgmmaShared<Shape>& shared, int sets, int reach)
      : mask_(head),
        maps_(maps),
        shared_(shared),
        key_head_(head.head / sets),
        batch_(head.batch),
        reach_(reach) {}

  // `head`, `query`: the first of the block's rows. What one lane waits for, others need not: they
  // might miss a phase.
  __device__ void run(int head, int query) {
    const bool leads = threadIdx.x % 32 == 0;
    Note note = before((reach_ + Shape::KEYS - 1) / Shape::KEYS);
    if (leads && note.end == 0) announce_nothing(note);
    if (leads && note.end > 0) load_queries(head, query);
    for (int n = 0; note.end > 0; ++n) {
      const Note next = before(note.first / Shape::KEYS);
      note.last = next.end == 0;
      if (leads) publish(n, note);
      note = next;
    }
  }

 private:
  // The nearest tile in front of tile `t` that is not hidden, or the note that there is none. All
  // lanes call it.
  __device__ Note before(int t) const {
    while (--t >= 0) {
      const int first = t * Shape::KEYS;
      const Look look = mask_.template look<Shape::KEYS>(first);
      const int end = min(look.end, reach_ - first);
      if (look.end > 0) return {first, end, look.cover == Cover::clear, false};
    }
    return {0, 0, false, true};
  }

  __device__ void announce_nothing(const Note& note) {
    shared_.notes[0] = note;
    shared_.keys_there[0].arrive();
  }

  __device__ void load_queries(int head, int query) {
    shared_.queries_there.arrive_expecting(Shape::QUERY_BYTES);
    load<Shape::ROWS>(shared_.queries, maps_.q, shared_.queries_there, head, query);
  }

  // The tile as the n-th one, when all consumers are done with what lay there.
  __device__ void publish(int n, const Note& note) {
    const Slot<Shape::STAGES> slot(n);
    const int s = slot.stage;
    shared_.keys_free[s].wait(slot.parity ^ 1);
    shared_.notes[s] = note;
    shared_.keys_there[s].arrive_expecting(Shape::TILE_BYTES);
    load<Shape::KEYS>(shared_.keys[s], maps_.k, shared_.keys_there[s], key_head_, note.first);
    shared_.values_free[s].wait(slot.parity ^ 1);
    shared_.values_there[s].arrive_expecting(Shape::TILE_BYTES);
    load<Shape::KEYS>(shared_.values[s], maps_.v, shared_.values_there[s], key_head_, note.first);
  }

  template <int ROWS>
  __device__ void load(unsigned char* to, const TensorMap& map, Barrier& there, int head, int row) {
#pragma unroll
    for (int i = 0; i < Shape::BOXES; ++i)
      load_tile(to + i * ROWS * Shape::BOX_ROW, map, there, 64 * i, head, row, batch_);
  }

  const SharedMask<T, M> mask_;
  const AttentionMaps& maps_;
  WgmmaShared<Shape>& shared_;
  int key_head_, batch_, reach_;
};

}  // namespace dfc::cuda::flash
