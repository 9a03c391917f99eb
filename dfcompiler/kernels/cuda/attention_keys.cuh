// Tiles of keys and values: which of them a block walks, what a mask does to them, their copies.
//
//   buffer 0   │ K │ V │   tile t is multiplied           each KEYS rows, PITCH elements apart
//   buffer 1   │ K │ V │   tile t + 1 comes by cp.async
//
// Tiles beyond the reach of a block's last row, and those that a mask hides from all rows, are not
// read or not multiplied.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention_rows.cuh"
#include "block_fold.h"
#include "ptx.h"

namespace dfc::cuda::flash {

// The tiles of keys that this block walks: its share of those that its last row can see.
struct Tiles {
  int begin, end;
};

template <int KEYS>
__device__ inline Tiles tiles_of(int reach, int split, int splits) {
  const int seen = (reach + KEYS - 1) / KEYS, share = (seen + splits - 1) / splits;
  const int end = (split + 1) * share;
  return {split * share, end < seen ? end : seen};
}

// What a mask does to the scores of a tile of keys, for all rows alike.
enum class Cover { clear, mixed, hidden };

// Of a tile: what a mask does to it, and how many keys there are up to the last one shown.
struct Look {
  Cover cover;
  int end;
};

// A mask without a stride along rows, as padding and the free end of a cache make them: its tiles
// are looked through once, by all threads together, instead of score by score.
template <class T, class M>
class SharedMask {
 public:
  __device__ explicit SharedMask(const Head<T, M>& head)
      : mask_(head.mask(0)), step_(head.p.mask_strides[3]), keys_(int(head.p.keys)) {
    shared_ = head.p.mask_strides[1] == 0 && head.p.mask_strides[2] == 0;
  }

  // Keys in front of which something is shown, at most `reach`. All threads of the block call it.
  __device__ int end(int reach) const {
    if constexpr (std::is_same_v<M, NoMask>) {
      return reach;
    } else {
      if (!shared_) return reach;
      int found = 0;
      for (int key = threadIdx.x; key < reach; key += blockDim.x) {
        if (shows(mask_[key * step_])) found = key + 1;
      }
      return rows::block_fold(found, 0, rows::Greater{});
    }
  }

  // All lanes of the warp call it.
  template <int KEYS>
  __device__ Look look(int first) const {
    if constexpr (std::is_same_v<M, NoMask>) {
      return {Cover::clear, KEYS};
    } else {
      if (!shared_) return {Cover::mixed, KEYS};
      bool clear = true;
      int end = 0;
#pragma unroll
      for (int i = 0; i < KEYS; i += 32) {
        const int key = first + i + int(threadIdx.x) % 32;
        if (key >= keys_) continue;
        const M mask = mask_[key * step_];
        clear &= leaves(mask);
        if (shows(mask)) end = key - first + 1;
      }
      if (__all_sync(0xffffffffu, clear)) return {Cover::clear, KEYS};
      end = __reduce_max_sync(0xffffffffu, end);
      return {end > 0 ? Cover::mixed : Cover::hidden, end};
    }
  }

 private:
  __device__ static bool shows(M mask) {
    if constexpr (std::is_same_v<M, bool>) return mask;
    else return to_float(mask) != HIDDEN;
  }
  __device__ static bool leaves(M mask) {
    if constexpr (std::is_same_v<M, bool>) return mask;
    else return to_float(mask) == 0.0f;
  }

  const M* mask_;
  long step_;
  int keys_;
  bool shared_;
};

// Copies rows [first, first + ROWS) of a matrix to shared memory, `PITCH` elements apart, by all
// threads; zeros beyond its rows and columns. 16 bytes at a time, in the background, where
// everything is aligned to that: a thread has one column of these, and every STEP-th row.
template <int ROWS, int WIDTH, int PITCH, int THREADS, class T>
class TileCopy {
  static constexpr int PACK = 16 / sizeof(T), ACROSS = WIDTH / PACK, STEP = THREADS / ACROSS;
  static_assert(THREADS % ACROSS == 0 && ROWS % STEP == 0);

 public:
  __device__ TileCopy(const T* data, const long (&strides)[4], long rows, long width)
      : data_(data), strides_(strides), rows_(int(rows)), width_(int(width)) {
    aligned_ = strides[3] == 1 && strides[2] % PACK == 0 && width % PACK == 0 &&
               reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  }

  __device__ void operator()(T* to, int first) const {
    if (!aligned_) {
      elements(to, first);
      return;
    }
    const int c = threadIdx.x % ACROSS * PACK, r = threadIdx.x / ACROSS;
    const T* from = data_ + (first + r) * strides_[2] + c;
    to += r * PITCH + c;
    int left = c < width_ ? rows_ - first - r : 0;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; ++i) {
      cp_async_16(to + i * STEP * PITCH, left > 0 ? from : data_, left > 0 ? 16 : 0);
      from += STEP * strides_[2];
      left -= STEP;
    }
  }

 private:
  __device__ void elements(T* to, int first) const {
    for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
      const int r = i / WIDTH, c = i % WIDTH;
      const bool inside = first + r < rows_ && c < width_;
      to[r * PITCH + c] = inside ? data_[(first + r) * strides_[2] + c * strides_[3]]
                                 : from_float<T>(0.0f);
    }
  }

  const T* data_;
  const long (&strides_)[4];
  int rows_, width_;
  bool aligned_;
};

// The walk of a block. Tile gives KEYS, WIDTH, PITCH and THREADS.
template <class Tile, class T, class M>
class KeyWalk {
  static constexpr int KEYS = Tile::KEYS, ELEMENTS = KEYS * Tile::PITCH;
  using Copy = TileCopy<KEYS, Tile::WIDTH, Tile::PITCH, Tile::THREADS, T>;

 public:
  // `buffers` has room for four tiles; `reach` is that of the block's last row.
  __device__ KeyWalk(const Head<T, M>& head, T* buffers, int reach, int splits)
      : mask_(head),
        end_(mask_.end(reach)),
        keys_(head.k(), head.p.k_strides, end_, head.p.width),
        values_(head.v(), head.p.v_strides, end_, head.p.value_width),
        tiles_(tiles_of<KEYS>(end_, blockIdx.y, splits)),
        buffers_(buffers) {}

  // Starts the copy of the first tile.
  __device__ void start() const {
    if (tiles_.begin < tiles_.end) copy(tiles_.begin);
  }

  // visit(keys, values, first key, cover) for each tile that is not hidden, by all threads.
  template <class Visit>
  __device__ void each(const Visit& visit) const {
    for (int t = tiles_.begin; t < tiles_.end; ++t) {
      const Cover cover = mask_.template look<KEYS>(t * KEYS).cover;
      cp_async_wait<0>();
      __syncthreads();  // the tile is there, and nobody reads the other buffer any more
      if (t + 1 < tiles_.end) copy(t + 1);
      if (cover != Cover::hidden) visit(buffer(t), buffer(t) + ELEMENTS, t * KEYS, cover);
    }
  }

 private:
  __device__ T* buffer(int t) const { return buffers_ + t % 2 * (2 * ELEMENTS); }

  __device__ void copy(int t) const {
    keys_(buffer(t), t * KEYS);
    values_(buffer(t) + ELEMENTS, t * KEYS);
    cp_async_commit();
  }

  const SharedMask<T, M> mask_;
  const int end_;
  const Copy keys_, values_;
  const Tiles tiles_;
  T* const buffers_;
};

}  // namespace dfc::cuda::flash
