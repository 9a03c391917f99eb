// The attention kernels, and which of them an attention takes.
//
//   type, width         rows of a key head    kernel
//   16 bits, ≤ 128      ≤ 16, or few tiles    tensor cores, 16 rows a block, keys split
//                       more                  tensor cores, 64 or 128 rows a block
//   float, ≤ 128        ≤ 8, or few tiles     multiply-adds, 8 rows a block, keys split
//                       more                  multiply-adds, 64 rows a block
//   others              any                   a warp a row
//
// "Few tiles": the large ones would leave more than half of the multiprocessors without work.
//
// Split: in decoding one block for each key head leaves most multiprocessors without work, and the
// time is that of reading k and v once: 2 · keys · width · batch · kv_heads elements. The keys are
// cut into parts until there are about two blocks for each multiprocessor, a part at least two
// tiles; a second kernel weighs the parts' sums against each other:
//
//   part 0  Σ w·v, peak, Σ w ─┐
//   part 1  Σ w·v, peak, Σ w ─┤   o = Σ 2^(peakᵢ - peak) · (Σ w·v)ᵢ / Σ 2^(peakᵢ - peak) · (Σ w)ᵢ
//   …                        ─┘   (width + 2) floats a row and part: little beside the keys
#pragma once

#include "attention_float.cuh"
#include "attention_tensor.cuh"
#include "attention_warp.cuh"
#include "launch.h"
#include "workspace.h"

namespace dfc::cuda {
namespace flash {

inline constexpr int MERGE_THREADS = 128;

template <class Products, class M, bool CAUSAL>
__global__ void __launch_bounds__(Products::THREADS)
    attend(const __grid_constant__ Awaited<Attention<typename Products::Element, M>> given,
           const __grid_constant__ Split split, int tiles) {
  // The last rows see most keys if something hides the others: their blocks start first.
  const int tile = tiles - 1 - int(blockIdx.x) % tiles;
  TiledAttention<Products, M, CAUSAL> work(given.wait(), split, tile, int(blockIdx.x) / tiles);
  work.run();
}

template <class T, class M, int CHUNKS, bool CAUSAL>
__global__ void __launch_bounds__(32 * WARP_ROWS)
    attend_by_warp(const __grid_constant__ Awaited<Attention<T, M>> given, int blocks) {
  const Attention<T, M>& p = given.wait();
  const int row = int(blockIdx.x) % blocks * WARP_ROWS + int(threadIdx.x) / 32;
  if (row >= p.heads / p.kv_heads * p.queries) return;
  WarpAttention<T, M, CHUNKS, CAUSAL> work(p, row, int(blockIdx.x) / blocks);
  work.run();
}

// o of one row from the parts of its keys; one block for each row.
template <class T, class M>
__global__ void __launch_bounds__(MERGE_THREADS)
    merge(const __grid_constant__ Awaited<Attention<T, M>> given,
          const __grid_constant__ Split split) {
  const Attention<T, M>& p = given.wait();
  const long rows = p.heads / p.kv_heads * p.queries, width = p.value_width;
  const long parts = p.batch * p.kv_heads * rows * (width + 2);  // floats from a part to the next
  const Head<T, M> head(p, int(blockIdx.x / rows));
  const float* from = split.partial + blockIdx.x * (width + 2);
  Total total;
  for (int s = 0; s < split.splits; ++s) total.peak = fmaxf(total.peak, from[s * parts + width]);
  const float shift = total.peak == HIDDEN ? 0.0f : total.peak;
  for (int s = 0; s < split.splits; ++s) {
    const float* part = from + s * parts;
    total.sum += part[width + 1] * exp2_approximate(part[width] - shift);
  }
  const float inverse = total.inverse();
  T* o = head.o(int(blockIdx.x % rows));
  for (long d = threadIdx.x; d < width; d += MERGE_THREADS) {
    float sum = 0.0f;
    for (int s = 0; s < split.splits; ++s) {
      const float* part = from + s * parts;
      sum += part[d] * exp2_approximate(part[width] - shift);
    }
    o[d] = from_float<T>(sum * inverse);
  }
}

inline cudaError_t count_multiprocessors(int* count) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

// Blocks of tiles of `tile_rows` rows, before keys are split.
template <class T, class M>
long blocks_of(const Attention<T, M>& p, long tile_rows) {
  const long rows = p.heads / p.kv_heads * p.queries;
  return p.batch * p.kv_heads * ((rows + tile_rows - 1) / tile_rows);
}

// Into how many parts the keys are cut.
template <class T, class M>
int splits_of(const Attention<T, M>& p, long blocks, long tile_keys, int multiprocessors) {
  if (2 * blocks > multiprocessors) return 1;  // merging would cost more than it gains
  const long rows = p.batch * p.heads * p.queries;
  const long bytes = rows * (p.value_width + 2) * static_cast<long>(sizeof(float));
  const long room = static_cast<long>(WORKSPACE_BYTES) / bytes;
  const long useful = (p.keys + 2 * tile_keys - 1) / (2 * tile_keys);
  long parts = (2L * multiprocessors + blocks - 1) / blocks;
  if (parts > useful) parts = useful;
  if (parts > room) parts = room;
  return parts < 1 ? 1 : static_cast<int>(parts);
}

template <class Products, bool CAUSAL, class T, class M>
cudaError_t attend_in_tiles(cudaStream_t stream, const Attention<T, M>& p, int multiprocessors) {
  const long rows = p.heads / p.kv_heads * p.queries;
  const long tiles = (rows + Products::ROWS - 1) / Products::ROWS;
  const long blocks = p.batch * p.kv_heads * tiles;
  Split split{splits_of(p, blocks, Products::KEYS, multiprocessors), nullptr};
  if (split.splits > 1) {
    void* block = nullptr;
    const cudaError_t error = workspace_of(stream, &block);
    if (error != cudaSuccess) return error;
    split.partial = static_cast<float*>(block);
  }
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(split.splits));
  const cudaError_t error = launch(attend<Products, M, CAUSAL>, grid, dim3(Products::THREADS),
                                   Products::SHARED, stream, p, split, static_cast<int>(tiles));
  if (error != cudaSuccess || split.splits == 1) return error;
  const dim3 merged(static_cast<unsigned>(p.batch * p.kv_heads * rows));
  return launch(merge<T, M>, merged, dim3(MERGE_THREADS), 0, stream, p, split);
}

// The large tiles, or the small ones where the large ones leave most multiprocessors without work.
template <class Large, class Small, bool CAUSAL, class T, class M>
cudaError_t attend_filling(cudaStream_t stream, const Attention<T, M>& p) {
  int multiprocessors = 1;
  const cudaError_t error = count_multiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const long rows = p.heads / p.kv_heads * p.queries;
  if (rows <= Small::ROWS || 2 * blocks_of(p, Large::ROWS) <= multiprocessors)
    return attend_in_tiles<Small, CAUSAL>(stream, p, multiprocessors);
  return attend_in_tiles<Large, CAUSAL>(stream, p, multiprocessors);
}

template <class T, class M, int CHUNKS, bool CAUSAL>
cudaError_t attend_by_warps(cudaStream_t stream, const Attention<T, M>& p) {
  const long rows = p.heads / p.kv_heads * p.queries, blocks = (rows + WARP_ROWS - 1) / WARP_ROWS;
  const dim3 grid(static_cast<unsigned>(p.batch * p.kv_heads * blocks));
  return launch(attend_by_warp<T, M, CHUNKS, CAUSAL>, grid, dim3(32 * WARP_ROWS), 0, stream, p,
                static_cast<int>(blocks));
}

}  // namespace flash

template <class T, class M, int WIDTH, bool CAUSAL>
cudaError_t attention(cudaStream_t stream, Attention<T, M> p) {
  static_assert(WIDTH % 32 == 0);
  if (p.batch == 0 || p.heads == 0 || p.queries == 0 || p.value_width == 0) return cudaSuccess;
  // No grid has more blocks than there are rows.
  if (p.batch * p.heads * p.queries > 0x7fffffffL) return cudaErrorInvalidConfiguration;
  if constexpr (WIDTH > 128 || std::is_same_v<T, double>) {
    return flash::attend_by_warps<T, M, WIDTH / 32, CAUSAL>(stream, p);
  } else if constexpr (std::is_same_v<T, float>) {
    using Large = flash::FloatProducts<WIDTH, false>;
    using Small = flash::FloatProducts<WIDTH, true>;
    return flash::attend_filling<Large, Small, CAUSAL>(stream, p);
  } else {
    using Large = flash::TensorProducts<T, WIDTH, false>;
    using Small = flash::TensorProducts<T, WIDTH, true>;
    return flash::attend_filling<Large, Small, CAUSAL>(stream, p);
  }
}

}  // namespace dfc::cuda
