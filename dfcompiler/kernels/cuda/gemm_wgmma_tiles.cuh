// Product of bf16 or fp16 on sm_90a: one warp copies by TMA, two warp groups multiply by wgmma.
//
//   warp group 0      one thread: boxes of A and B ──▶ │ stage 0 │ stage 1 │ … │  a ring in shared
//                     as long as a stage is empty      └─────────┴─────────┴───┘  memory, BK = 64
//   warp groups 1, 2  wait for a full stage, multiply it, release it; then store their sums,
//                     while the copies of the next tile are under way
//
//   Wide   128 × 256 for both, 64 × 256 sums each     Turns   128 × 128 each: one group multiplies
//   group 1 │▒▒▒ tile 0 ▒▒▒│store│▒▒▒ tile 1 ▒▒▒│     group 1 │▒ tile 0 ▒│store │▒ tile 2 ▒│store
//   group 2 │▒▒▒ tile 0 ▒▒▒│store│▒▒▒ tile 1 ▒▒▒│     group 2            │▒ tile 1 ▒│store │▒ …
//
// A block for each multiprocessor; block i has the tiles i, i + blocks, …, 16 rows of tiles after
// each other so that they find A and B in the L2.
//
//   predicted, a stage of 64 steps of k           Wide                        Turns
//   cycles of the tensor cores                    1,024                       512
//   KB of shared memory: wgmma reads, TMA writes  2·4·(2+8) + 48 = 128        4·2·(2+4) + 32 = 80
//   cycles at 128 bytes each                      1,024                       640
//   bytes of L2 a cycle, flops a byte             48, 85                      50, 64
//   after a tile                                  all of the stores           nothing but the last
//   stages, shared bytes                          4, 197,632                  6, 197,632
//   registers, of which sums                      240, 128                    240, 128; no spills
//
// The L2 gives a multiprocessor 40 to 64 bytes a cycle: it may be the bound of both. Two blocks of
// a cluster that share their boxes of B (multicast) would ask for a third less.
//
// No deadlock: let the first stage that is never released be the one at position n of the ring.
// The producer filled it, because what it waits for is the release of position n - STAGES; the
// copies end on their own; the group that it is for comes to it in order, waiting only for copies
// and, taking turns, for the other group to have seen its last full stage, which is in front of n.
// Stores wait for nothing but threads of their own group, and no block waits for another one.
//
// Phases: the producer waits for `empty` of parity 1 first, which passes at once, and is never two
// phases behind: it is the only one to fill. A consumer may wait for `full` of position n because
// position n - STAGES is already full (its own, or the other group's, which handed over behind its
// last full stage), and n + STAGES cannot be before its own release.
//
// Exit: every stage that is filled is waited for, so no copy is on its way when a block ends.
// Shared memory that copies write is written by nothing else; wgmma has read a stage (its wait)
// before a warp releases it, which the producer sees by waiting for the barrier.
#pragma once

#include "gemm.h"
#include "gemm_finish.cuh"
#include "gemm_quads.cuh"
#include "gemm_tile.cuh"
#include "tma.h"
#include "warp_group.h"
#include "wgmma.h"

namespace dfc::cuda {

// SHARING: how many warp groups share a tile, 2 or 1 (they take turns).
template <int BN_, int STAGES_, int SHARING_, int STEP_CYCLES_>
struct WgmmaShape {
  static constexpr int BM = 128, BN = BN_, BK = 64, STAGES = STAGES_, SHARING = SHARING_;
  static constexpr int GROUPS = 2, THREADS = 128 * (1 + GROUPS);
  // Of a thread that copies, which machine code shows to need less, and of one that multiplies: the
  // residual that is read ahead needs them.
  static constexpr int COPY_REGISTERS = 24, REGISTERS = 240;
  static_assert(COPY_REGISTERS + GROUPS * REGISTERS <=
                (1 + GROUPS) * registers_at_start(THREADS));
  // Rows of a group, as products of 64 × BN.
  static constexpr int ROWS = BM / SHARING, PRODUCTS = ROWS / 64;
  static constexpr int STAGE_BYTES = (BM + BN) * BK * 2;
  static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + 1024;
  // Predicted cycles of a stage, the more of tensor cores and shared memory.
  static constexpr int STEP_CYCLES = STEP_CYCLES_;
};

using WgmmaWide = WgmmaShape<256, 4, 2, 1024>;
using WgmmaTurns = WgmmaShape<128, 6, 1, 640>;

// A stage of the ring, and which phase of its barriers is meant.
template <class S>
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;

  __device__ void advance() { skip(1); }
  __device__ void skip(int stages) {
    stage += stages;
    parity ^= stage / S::STAGES & 1;
    stage %= S::STAGES;
  }
};

// Attributes:
//   full: a stage's copies are there; the producer arrives.
//   empty: a stage has been multiplied; each warp that did so arrives.
//   turn: of a group that takes turns, the other group has seen its last full stage.
template <class S>
struct Barriers {
  Barrier full[S::STAGES], empty[S::STAGES], turn[S::GROUPS];

  __device__ void init() {
    for (int i = 0; i < S::STAGES; ++i) {
      full[i].init(1);
      empty[i].init(4 * S::SHARING);
    }
    for (int i = 0; i < S::GROUPS; ++i) turn[i].init(4);
    fence_barriers();
  }
};

// One tile and one part of k, which has `steps` stages from `first` on.
struct WgmmaUnit {
  TilePlace at;
  int first, steps;

  // The unit with a number, in the order of TilePlace but with 16 rows of tiles. 32-bit divisions,
  // of numbers less than 2^31, take a quarter of the instructions.
  template <class S, class T>
  __device__ static WgmmaUnit of_index(const Gemm<T>& p, const Split& split, unsigned index) {
    constexpr unsigned GROUP = 16;
    const auto parts = static_cast<unsigned>(split.parts);
    const auto rows = static_cast<unsigned>((p.M + S::BM - 1) / S::BM);
    const auto columns = static_cast<unsigned>((p.N + S::BN - 1) / S::BN);
    const unsigned rest = index / (rows * columns), tile = index % (rows * columns);
    const unsigned above = tile / (GROUP * columns) * GROUP;
    const unsigned height = rows - above < GROUP ? rows - above : GROUP;
    const unsigned inside = tile - above * columns, batch = rest / parts, part = rest % parts;
    const int first = static_cast<int>(part * split.depth);
    const int left = static_cast<int>(p.K) - first, depth = static_cast<int>(split.depth);
    return {{static_cast<long>(above + inside % height) * S::BM,
             static_cast<long>(inside / height) * S::BN, batch, part,
             static_cast<long>(batch) * rows * columns + tile},
            first,
            ((left < depth ? left : depth) + S::BK - 1) / S::BK};
  }
};

template <class S, class T>
struct WgmmaRing {
  T* tiles;
  Barriers<S>* barriers;

  // A of a stage, [128][64]; B behind it: [BN][64], or BN / 64 times [64][64] with n contiguous.
  __device__ T* a(int stage) const { return tiles + stage * (S::STAGE_BYTES / 2); }
  __device__ T* b(int stage) const { return a(stage) + S::BM * S::BK; }
};

// The producer: fills the ring with the stages of all units of this block. By one thread.
template <class S, class T, Along along_b>
__device__ inline void copy_stages(const TensorMap& map_a, const TensorMap& map_b,
                                   const Gemm<T>& p, const Split& split, unsigned units,
                                   const WgmmaRing<S, T>& ring) {
  prefetch_map(map_a);
  prefetch_map(map_b);
  RingPlace<S> place;
  for (unsigned index = blockIdx.x; index < units; index += gridDim.x) {
    const WgmmaUnit unit = WgmmaUnit::of_index<S>(p, split, index);
    const int row = static_cast<int>(unit.at.row), column = static_cast<int>(unit.at.column);
    // An operand that the whole batch shares has a batch of one.
    const int batch_a = p.a_batch == 0 ? 0 : static_cast<int>(unit.at.batch);
    const int batch_b = p.b_batch == 0 ? 0 : static_cast<int>(unit.at.batch);
    for (int step = 0; step < unit.steps; ++step, place.advance()) {
      const int k = unit.first + step * S::BK;
      Barrier& full = ring.barriers->full[place.stage];
      ring.barriers->empty[place.stage].wait(place.parity ^ 1);
      full.arrive_expecting(S::STAGE_BYTES);
      load_tile(ring.a(place.stage), map_a, full, k, row, batch_a);
      if constexpr (along_b == Along::depth) {
        load_tile(ring.b(place.stage), map_b, full, k, column, batch_b);
      } else {
#pragma unroll
        for (int n = 0; n < S::BN; n += 64)
          load_tile(ring.b(place.stage) + n * S::BK, map_b, full, column + n, k, batch_b);
      }
    }
  }
}

// sums = A·B over the steps of a unit, from the stages at `place` on, which moves behind them, and
// with rows of A from `row` on. The last products are still to be waited for; their stage is
// returned.
template <class S, class T, Along along_b>
__device__ inline int multiply_stages(float (&sums)[S::PRODUCTS][S::BN / 2],
                                       const WgmmaRing<S, T>& ring, RingPlace<S>& place, int row,
                                       int steps) {
  constexpr bool transposed = along_b == Along::width;
  const bool signals = threadIdx.x % 32 == 0;
  int before = 0;
  for (int step = 0; step < steps; ++step, place.advance()) {
    ring.barriers->full[place.stage].wait(place.parity);
    const Descriptor left = make_descriptor(ring.a(place.stage) + row * S::BK, 16, 1024);
    const Descriptor right =
        make_descriptor(ring.b(place.stage), transposed ? 64 * S::BK * 2 : 16, 1024);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < S::BK; k += 16) {
#pragma unroll
      for (int j = 0; j < S::PRODUCTS; ++j)
        wgmma_m64k16<transposed>(sums[j], advanced(left, (j * 64 * S::BK + k) * 2),
                                 advanced(right, transposed ? 128 * k : 2 * k), T{},
                                 step > 0 || k > 0);
    }
    wgmma_commit();
    // The products of the step before are done: its stage can be filled again.
    wgmma_wait<1>();
    if (signals && step > 0) ring.barriers->empty[before].arrive();
    before = place.stage;
  }
  return before;
}

// Whether the other parts of what this group has of a tile are there; they can be read then.
template <class S>
__device__ inline bool is_last_of_group(const Split& split, long tile, int group) {
  __shared__ bool last[S::GROUPS];
  __threadfence();
  sync_at(1 + group, 128);
  if (threadIdx.x % 128 == 0) {
    unsigned* done = split.done + (S::SHARING == 1 ? tile : tile * S::GROUPS + group);
    last[group] = atomicAdd(done, 1u) == static_cast<unsigned>(split.parts - 1);
    if (last[group]) *done = 0;
  }
  sync_at(1 + group, 128);
  __threadfence();
  return last[group];
}

// A consumer group: multiplies and stores its share of all units of this block.
template <class S, class T, Along along_b, Activation activation, Residual residual>
__device__ inline void multiply_units(const Gemm<T>& p, const Split& split, unsigned units,
                                      bool chunks, const WgmmaRing<S, T>& ring, int group) {
  const bool signals = threadIdx.x % 32 == 0;
  RingPlace<S> place;
  const int row = S::SHARING == 1 ? 0 : group * S::ROWS;
  unsigned turn = 0;
  for (unsigned index = blockIdx.x; index < units; index += gridDim.x, ++turn) {
    WgmmaUnit unit = WgmmaUnit::of_index<S>(p, split, index);
    if constexpr (S::SHARING == 1) {
      if (turn % 2 != group) {
        place.skip(unit.steps);
        continue;
      }
      if (turn > 0) ring.barriers->turn[group].wait((turn - 1) / 2 % 2);
    }
    float sums[S::PRODUCTS][S::BN / 2];
    const int last = multiply_stages<S, T, along_b>(sums, ring, place, row, unit.steps);
    if (S::SHARING == 1 && signals) ring.barriers->turn[1 - group].arrive();
    unit.at.row += row;
    const int thread = threadIdx.x % 128;
    QuadPlace at{unit.at.batch, static_cast<int>(unit.at.row) + thread / 32 * 16 + thread % 32 / 4,
                 static_cast<int>(unit.at.column)};
    QuadResidual<residual, S::BN, T> others;
    // What is added to the sums is read while the last products run.
    const bool reads = chunks && split.partial == nullptr;
    if (reads) others.load(p, at);
    wgmma_wait<0>();
    keep_in_place(sums);
    if (signals) ring.barriers->empty[last].arrive();
#pragma unroll
    for (int j = 0; j < S::PRODUCTS; ++j, at.row += 64) {
      if (split.partial == nullptr) {
        if (j > 0 && reads) others.load(p, at);
        store_sums<activation, residual, S::BN>(p, chunks, at, sums[j], others);
      } else {
        store_partial<S::BN>(p, split, unit.at.part, at, sums[j]);
      }
    }
    if (split.partial != nullptr && is_last_of_group<S>(split, unit.at.tile, group))
      add_parts<S::ROWS, S::BN, 128, activation, residual>(p, split, unit.at, thread);
  }
}

template <class S, class T, Along along_b, Activation activation, Residual residual>
__global__ void __launch_bounds__(S::THREADS, 1)
    wgmma_tiles(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
                Gemm<T> p, Split split, unsigned units, bool chunks) {
  __shared__ Barriers<S> barriers;
  const WgmmaRing<S, T> ring{reinterpret_cast<T*>(aligned_1024(dynamic_shared())), &barriers};
  if (threadIdx.x == 0) barriers.init();
  __syncthreads();
  if (threadIdx.x < 128) {
    give_back_registers_to<S::COPY_REGISTERS>();
    if (threadIdx.x == 0) copy_stages<S, T, along_b>(map_a, map_b, p, split, units, ring);
  } else {
    take_registers_to<S::REGISTERS>();
    multiply_units<S, T, along_b, activation, residual>(p, split, units, chunks, ring,
                                                        threadIdx.x / 128 - 1);
  }
}

}  // namespace dfc::cuda
