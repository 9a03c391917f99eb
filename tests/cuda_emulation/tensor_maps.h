// Tensors in global memory, and boxes of them that are copied into shared memory.
#pragma once

#include <cuda.h>

#include <vector>

#include "engine.h"

namespace emulation {

// Starts the copy of the box at some coordinates, the contiguous axis first; `barrier` counts its
// bytes. Its place is poison until the barrier's phase is waited for.
void load_box(void* shared, const CUtensorMap& map, unsigned long long* barrier,
              const std::vector<int>& at, Place place);

// The driver's function that the runtime hands out by its name.
CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t axes, void* base,
                      const cuuint64_t* extents, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* steps, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                      CUtensorMapFloatOOBfill fill);

}  // namespace emulation
