// Attention by warp groups, sm_90a, bf16 and fp16: one warp copies, two or three groups multiply.
//
//            ┌──────────── K tile ───────────┐   ┌── V tile ──┐
//            │ 128 keys, two stages by TMA   │   │ the same   │   group 0: one warp starts copies
//    Q       └───────────────────────────────┘   └────────────┘   (attention_wgmma_walk.cuh)
//  ┌──────┐  ┌───────────────────────────────┐   ┌────────────┐
//  │ 64   │  │ S = Q·Kᵀ   →   weights P      │ · │ O += P·V   │   groups 1, 2 (, 3): 64 rows each
//  ├──────┤  ├───────────────────────────────┤   ├────────────┤   (attention_wgmma_rows.cuh)
//  │ 64   │  │ in registers                  │   │ registers  │
//  └──────┘  └───────────────────────────────┘   └────────────┘
//
//   width  mask  rows × keys  registers of     S + P + O   shared bytes  Q, K twice, V twice
//                             copies, products
//   ≤ 128  any   128 × 128    40, 232          160         164,976       32 + 2·32 + 2·32 KB
//   ≤ 64   none  192 × 128    32, 160          128          91,248       24 + 2·16 + 2·16 KB
//   ≤ 64   any   128 × 128    40, 232          128          83,056       16 + 2·16 + 2·16 KB
//
// One block a multiprocessor: its threads have all of the registers. With a mask, addresses and
// what is loaded of it do not fit into 160. Nothing is spilled. So that tensor cores do not wait for
// a next block to begin, a block takes one tile of rows after the other, and the copies of the next
// begin before the products of this one have ended. Numbers are drawn, the longest walks of a head
// first: causal walks differ in length.
//
// Cycles of a multiprocessor for a tile of keys (4096 flops, 16 exponentials, 4 × 32 instructions):
//
//   width  tensor cores  exponentials  instructions
//   128    2048          1056          1116 = 2 groups · 558
//   64     1536          1584          1467 = 3 groups · 489
//
// so wide heads are bound by the tensor cores if the softmax of a group runs beside products, and
// narrow ones by whatever gets least out of each other's way: a prediction, nothing was measured.
//
// Deadlock: three things are waited for. Copies of tile n wait until all groups have released tile
// n - 2 (or, of queries, the scores of the walk before), which a group does after products that it
// has started. It starts those of tile n when tile n is there and its turn has come. A turn waits
// for the turn before, in which a group may wait for copies of the same tile n and of the values of
// n - 1 only; what these wait for is released after turn n - 1 at the latest, and without a turn.
// So by induction over n, and over groups for one n, all ends. A wait for a turn has one arrival: all
// groups take turns at the same tiles, the last group passes the very first turn, and group 0 takes
// the one that is left at the end. By then every copy has been waited for by all groups.
//
// Asked for with {"attention": "wgmma"}: it has run in emulation only, on no device.
#pragma once

#include <cstddef>
#include <numeric>
#include <type_traits>

#include "attention.cuh"
#include "attention_wgmma.h"
#include "attention_wgmma_rows.cuh"

namespace dfc::cuda {
namespace flash {

inline constexpr int LEAST_WGMMA_ROWS = 64;  // of a key head: one warp group

template <int WIDTH, class M>
using WgmmaShapeOf = std::conditional_t<
    (WIDTH > 64), WgmmaShape<128, 2, 40, 232>,
    std::conditional_t<std::is_same_v<M, NoMask>, WgmmaShape<64, 3, 32, 160>,
                       WgmmaShape<64, 2, 40, 232>>>;

// `p.kv_heads` counts sets of heads that are rows of one matrix.
template <class Shape, class T, class M, bool CAUSAL>
__global__ void __launch_bounds__(Shape::THREADS, 1)
    attend_by_wgmma(const __grid_constant__ Attention<T, M> p,
                    const __grid_constant__ AttentionMaps maps,
                    const __grid_constant__ RowTiles work) {
  auto& shared = *reinterpret_cast<WgmmaShared<Shape>*>(aligned_1024(dynamic_shared()));
  if (threadIdx.x == 0) shared.init();
  __syncthreads();
  if (threadIdx.x < 128) {
    give_back_registers_to<Shape::PRODUCER_REGISTERS>();
    if (threadIdx.x >= 32) return;
    TileProducer<Shape, T, M, CAUSAL> producer(p, maps, work, shared);
    producer.run();
  } else {
    take_registers_to<Shape::CONSUMER_REGISTERS>();
    consume<Shape, T, M, CAUSAL>(p, work, shared, int(threadIdx.x) / 128 - 1);
  }
}

// A tensor [batch, heads, rows, width] for TMA; its map's axes are (width, heads, rows, batch).
template <class T>
TensorBoxes boxes_of(const T* base, const long (&extents)[4], const long (&strides)[4],
                     int box_heads, int box_rows) {
  TensorBoxes of{base,
                 4,
                 {extents[3], extents[1], extents[2], extents[0]},
                 {strides[1], strides[2], strides[0]},
                 {64, box_heads, box_rows, 1}};
  for (int i = 0; i < 3; ++i) {
    // Nothing is one step along an axis of one element away, and its stride may be anything.
    if (of.extents[i + 1] == 1) of.strides[i] = (extents[3] + 7) / 8 * 8;
    of.strides[i] *= long(sizeof(T));
  }
  return of;
}

// `packed` query heads are rows of one matrix.
template <class Shape, bool CAUSAL, class T, class M>
cudaError_t attend_by_warp_groups(cudaStream_t stream, Attention<T, M> p,
                                  const TensorBoxes (&boxes)[3], int packed, int multiprocessors) {
  AttentionMaps maps;
  TensorMap* to[] = {&maps.q, &maps.k, &maps.v};
  for (int i = 0; i < 3; ++i) {
    const cudaError_t error = make_tensor_map<T>(to[i], boxes[i]);
    if (error != cudaSuccess) return error;
  }
  void* workspace = nullptr;
  const cudaError_t error = workspace_of(stream, &workspace);
  if (error != cudaSuccess) return error;
  const long sets = p.heads / p.kv_heads / packed;
  p.kv_heads *= sets;
  const long tiles = (packed * p.queries + Shape::ROWS - 1) / Shape::ROWS;
  const int all = static_cast<int>(p.batch * p.kv_heads * tiles);
  const RowTiles work{static_cast<int>(sets), static_cast<int>(tiles), all,
                      counters_of(workspace)};
  const dim3 grid(static_cast<unsigned>(all < multiprocessors ? all : multiprocessors));
  return launch(attend_by_wgmma<Shape, T, M, CAUSAL>, grid, dim3(Shape::THREADS),
                sizeof(WgmmaShared<Shape>) + 1024, stream, p, maps, work);
}

}  // namespace flash

template <class T, class M, int WIDTH, bool CAUSAL>
cudaError_t attention_wgmma(cudaStream_t stream, Attention<T, M> p) {
  static_assert(sizeof(T) == 2 && WIDTH <= 128);
  using Shape = flash::WgmmaShapeOf<WIDTH, M>;
  int multiprocessors = 1;
  const cudaError_t error = flash::count_multiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const long group = p.kv_heads > 0 ? p.heads / p.kv_heads : 0;
  // Numbers of rows and of their tiles are 32-bit ones.
  const bool many = group * p.queries >= flash::LEAST_WGMMA_ROWS &&
                    p.batch * p.heads * p.queries <= MOST_EXTENT &&
                    2 * flash::blocks_of(p, Shape::ROWS) > multiprocessors;
  if (many && p.q_strides[3] == 1 && p.k_strides[3] == 1 && p.v_strides[3] == 1) {
    const int packed = std::gcd(int(group), Shape::ROWS);
    const TensorBoxes boxes[] = {
        flash::boxes_of(p.q, {p.batch, p.heads, p.queries, p.width}, p.q_strides, packed,
                        Shape::ROWS / packed),
        flash::boxes_of(p.k, {p.batch, p.kv_heads, p.keys, p.width}, p.k_strides, 1, Shape::KEYS),
        flash::boxes_of(p.v, {p.batch, p.kv_heads, p.keys, p.value_width}, p.v_strides, 1,
                        Shape::KEYS)};
    bool described = true;
    for (const TensorBoxes& of : boxes) described &= why_no_map(of, sizeof(T)) == nullptr;
    if (described)
      return flash::attend_by_warp_groups<Shape, CAUSAL>(stream, p, boxes, packed, multiprocessors);
  }
  return attention<T, M, WIDTH, CAUSAL>(stream, p);
}

}  // namespace dfc::cuda
