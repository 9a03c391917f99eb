// The producer of attention by wgmma: which tiles of keys a block walks, and their copies by TMA.
//
//   queries   │ Q              │  once for a tile of rows
//   stage 0   │ K │ V │ note   │  tile n is multiplied       K and V have barriers of their own: the
//   stage 1   │ K │ V │ note   │  tile n + 1 is on its way   scores of tile n + 1 are started before
//                                                            the values of tile n are done with
//
// A block has as many tiles of rows as it comes to: when all tiles of one are on their way, it draws
// the number of the next, whose copies begin while the products of the one before come to an end.
// Of its keys the walk is from the last tile that the rows see to the first. A tile that a shared
// mask hides is not read; what else there is to know of a tile is its note, written before its keys
// arrive. Tiles of keys are numbered through all walks.
#pragma once

#include "attention_keys.cuh"
#include "attention_wgmma_products.cuh"
#include "tma.h"

namespace dfc::cuda::flash {

// What consumers are told of a tile of keys.
//
// Attributes:
//   rows: the number of the tile of rows; -1: there are no more.
//   first: its first key.
//   end: keys from first + end on are not seen by any row; 0: no row sees any key at all.
//   clear: no mask does anything to it.
//   last: it is the last one of the walk.
struct __align__(16) Note {
  int rows, first, end;
  bool clear, last;
};

// What TMA reads, as (element, head, row, batch).
struct AttentionMaps {
  TensorMap q, k, v;
};

// The tiles of rows of a launch: of each set of heads `tiles`, `all` together.
//
// Attributes:
//   sets: of heads that read one key head.
//   counters: two of the workspace's: numbers that were drawn, and blocks that have ended.
struct RowTiles {
  int sets, tiles, all;
  unsigned* counters;

  __device__ int set(int number) const { return number / tiles; }
  // The last rows see most keys if something hides the others: they come first.
  __device__ int first_row(int number, int rows) const {
    return (tiles - 1 - number % tiles) * rows;
  }
};

template <class Shape>
struct WgmmaShared {
  unsigned char queries[Shape::QUERY_BYTES];
  unsigned char keys[Shape::STAGES][Shape::TILE_BYTES];
  unsigned char values[Shape::STAGES][Shape::TILE_BYTES];
  Note notes[Shape::STAGES];
  Barrier queries_there, queries_free;
  Barrier keys_there[Shape::STAGES], keys_free[Shape::STAGES];
  Barrier values_there[Shape::STAGES], values_free[Shape::STAGES];

  // By one thread, before a barrier of the block.
  __device__ void init() {
    queries_there.init(1);
    queries_free.init(4 * Shape::CONSUMERS);  // each warp
    for (int i = 0; i < Shape::STAGES; ++i) {
      keys_there[i].init(1);
      values_there[i].init(1);
      keys_free[i].init(4 * Shape::CONSUMERS);
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

// One warp. What one lane waits for, the others do not: they might miss a phase.
template <class Shape, class T, class M, bool CAUSAL>
class TileProducer {
  using Mask = SharedMask<T, M>;

 public:
  __device__ TileProducer(const Attention<T, M>& p, const AttentionMaps& maps, const RowTiles& work,
                          WgmmaShared<Shape>& shared)
      : p_(p), maps_(maps), work_(work), shared_(shared), leads_(threadIdx.x % 32 == 0) {}

  __device__ void run() {
    for (int number = blockIdx.x; number < work_.all; number = draw()) walk(number);
    if (leads_) {
      publish({-1, 0, 0, false, true}, 0, 0);
      leave();
    }
  }

 private:
  // Numbers from those that blocks begin with on.
  __device__ int draw() const {
    unsigned drawn = 0;
    if (leads_) drawn = atomicAdd(work_.counters, 1u);
    return int(gridDim.x + __shfl_sync(0xffffffffu, drawn, 0));
  }

  // The last block to come here leaves the counters at zero.
  __device__ void leave() const {
    __threadfence();
    if (atomicAdd(work_.counters + 1, 1u) + 1 == gridDim.x)
      work_.counters[0] = work_.counters[1] = 0;
  }

  __device__ void walk(int number) {
    const Head<T, M> head(p_, work_.set(number));
    const int row = work_.first_row(number, Shape::ROWS), key_head = head.head / work_.sets;
    const int reach = head.template reach<CAUSAL>(min(row + Shape::ROWS, head.rows) - 1);
    const Mask mask(head);
    Note note = before((reach + Shape::KEYS - 1) / Shape::KEYS, mask, reach);
    if (leads_ && note.end > 0)
      load_queries(head.head * head.group, row / head.group, head.batch);
    do {
      const Note next = note.end > 0 ? before(note.first / Shape::KEYS, mask, reach) : note;
      note.rows = number;
      note.last = next.end == 0;
      if (leads_) publish(note, key_head, head.batch);
      note = next;
    } while (note.end > 0);
  }

  // The nearest tile in front of tile `t` that is not hidden, or the note that there is none. All
  // lanes call it.
  __device__ static Note before(int t, const Mask& mask, int reach) {
    while (--t >= 0) {
      const int first = t * Shape::KEYS;
      const Look look = mask.template look<Shape::KEYS>(first);
      const int end = min(look.end, reach - first);
      if (look.end > 0) return {0, first, end, look.cover == Cover::clear, false};
    }
    return {0, 0, 0, false, true};
  }

  // When all consumers are done with the queries before.
  __device__ void load_queries(int head, int query, int batch) {
    shared_.queries_free.wait(query_loads_++ % 2 ^ 1);
    shared_.queries_there.arrive_expecting(Shape::QUERY_BYTES);
    load<Shape::ROWS>(shared_.queries, maps_.q, shared_.queries_there, head, query, batch);
  }

  // As the next tile, when all consumers are done with what lay there; nothing is copied of a note
  // that only tells that there is nothing.
  __device__ void publish(const Note& note, int head, int batch) {
    const Slot<Shape::STAGES> slot(published_++);
    const int s = slot.stage;
    shared_.keys_free[s].wait(slot.parity ^ 1);
    shared_.notes[s] = note;
    fill(shared_.keys[s], maps_.k, shared_.keys_there[s], note, head, batch);
    shared_.values_free[s].wait(slot.parity ^ 1);
    fill(shared_.values[s], maps_.v, shared_.values_there[s], note, head, batch);
  }

  __device__ void fill(unsigned char* tile, const TensorMap& map, Barrier& there, const Note& note,
                       int head, int batch) {
    if (note.end == 0) {
      there.arrive();
      return;
    }
    there.arrive_expecting(Shape::TILE_BYTES);
    load<Shape::KEYS>(tile, map, there, head, note.first, batch);
  }

  template <int ROWS>
  __device__ void load(unsigned char* to, const TensorMap& map, Barrier& there, int head, int row,
                       int batch) {
#pragma unroll
    for (int i = 0; i < Shape::BOXES; ++i)
      load_tile(to + i * ROWS * Shape::BOX_ROW, map, there, 64 * i, head, row, batch);
  }

  const Attention<T, M>& p_;
  const AttentionMaps& maps_;
  const RowTiles& work_;
  WgmmaShared<Shape>& shared_;
  const bool leads_;
  int published_ = 0, query_loads_ = 0;
};

}  // namespace dfc::cuda::flash
