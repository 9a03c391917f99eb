// The tensors of tensor_maps.h: what the driver encodes is here a plain description.
#include "tensor_maps.h"

#include <cstdint>
#include <cstring>

#include "async_view.h"
#include "barriers.h"

namespace emulation {

namespace {

constexpr std::uint64_t MARK = 0x74656e736f726d70;
constexpr unsigned MOST_AXES = 5;

struct Description {
  std::uint64_t mark;
  const unsigned char* base;
  std::uint64_t extents[MOST_AXES], strides[MOST_AXES - 1];
  std::uint16_t box[MOST_AXES];
  std::uint8_t axes, element_bytes;
};
static_assert(sizeof(Description) <= sizeof(CUtensorMap));

unsigned bytes_of(CUtensorMapDataType type) {
  const bool is_half =
      type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  return is_half ? 2 : 0;
}

// One element of a box, counted through it in memory's order; zero outside of the tensor.
void copy_element(unsigned char* shared, const Description& of, const std::vector<int>& at,
                  std::size_t index) {
  const unsigned bytes = of.element_bytes;
  const unsigned char* from = of.base;
  bool inside = true;
  std::size_t rest = index;
  for (unsigned axis = 0; axis < of.axes; ++axis) {
    const long c = at[axis] + long(rest % of.box[axis]);
    rest /= of.box[axis];
    inside &= c >= 0 && std::uint64_t(c) < of.extents[axis];
    from += c * long(axis ? of.strides[axis - 1] : bytes);
  }
  // The tile is aligned to 1024, so a place tells its row among eight. Rows take 128 bytes each.
  const std::size_t row = index / of.box[0], column = index % of.box[0] * bytes;
  const std::size_t place = row * 128 + (column ^ (row & 7) << 4);
  if (inside)
    std::memcpy(shared + place, from, bytes);
  else
    std::memset(shared + place, 0, bytes);
}

}  // namespace

void load_box(void* shared, const CUtensorMap& map, unsigned long long* barrier,
              const std::vector<int>& at, Place place) {
  Description of;
  std::memcpy(&of, &map, sizeof of);
  if (of.mark != MARK) fail("a map that was not encoded", place);
  if (of.axes != at.size()) fail("as many coordinates as the tensor has no axes", place);
  if (of.box[0] * of.element_bytes != 128) fail("rows of a box of other than 128 bytes", place);
  if (reinterpret_cast<std::uintptr_t>(shared) % 1024)
    fail("a copy to an address that is not aligned to 1024 bytes", place);
  if (reinterpret_cast<std::uintptr_t>(&map) % 64)
    fail("a map at an address that is not aligned to 64 bytes", place);
  touch(of.base);  // it may be read from now on
  std::size_t count = 1;
  for (unsigned axis = 0; axis < of.axes; ++axis) count *= of.box[axis];
  auto* to = static_cast<unsigned char*>(shared);
  const std::size_t bytes = count * of.element_bytes;
  std::memset(to, POISON, bytes);
  view_copy(to, bytes, place);
  auto copy = [=] {
    for (std::size_t i = 0; i < count; ++i) copy_element(to, of, at, i);
    view_copy(to, bytes, place);
  };
  add_copy(barrier, unsigned(bytes), copy, place);
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t axes, void* base,
                      const cuuint64_t* extents, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* steps, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                      CUtensorMapFloatOOBfill fill) {
  const unsigned bytes = bytes_of(type);
  const bool known = bytes && axes >= 1 && axes <= MOST_AXES &&
                     interleave == CU_TENSOR_MAP_INTERLEAVE_NONE &&
                     swizzle == CU_TENSOR_MAP_SWIZZLE_128B &&
                     fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
  if (!known || reinterpret_cast<std::uintptr_t>(map) % 64 ||
      reinterpret_cast<std::uintptr_t>(base) % 16 || box[0] * bytes > 128 || box[0] * bytes % 16)
    return CUDA_ERROR_INVALID_VALUE;
  Description made{MARK, static_cast<const unsigned char*>(base)};
  made.axes = std::uint8_t(axes);
  made.element_bytes = std::uint8_t(bytes);
  for (unsigned i = 0; i < axes; ++i) {
    if (!extents[i] || extents[i] > 1ul << 32 || !box[i] || box[i] > 256 || steps[i] != 1)
      return CUDA_ERROR_INVALID_VALUE;
    made.extents[i] = extents[i];
    made.box[i] = std::uint16_t(box[i]);
    if (i + 1 == axes) break;
    if (strides[i] % 16 || strides[i] >= 1ul << 40) return CUDA_ERROR_INVALID_VALUE;
    made.strides[i] = strides[i];
  }
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}

}  // namespace emulation
