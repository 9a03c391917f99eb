// Dynamic shared memory as TMA and wgmma see it, through the async proxy.
//
//   threads ──▶ shared memory ── fence_view() ──▶ the view ──▶ wgmma
//                      ▲                             ▲
//                      └──────────── TMA ────────────┘
//
// What threads write is not in the view before one of them fences; a GPU promises no more. The view
// lies beside the memory, so that addresses in it are those in shared memory and an offset.
#pragma once

#include <cstddef>

#include "engine.h"

namespace emulation {

// From shared memory to its view, in bytes.
extern std::ptrdiff_t view_offset;

// A block begins with so much dynamic memory.
void begin_view(const unsigned char* shared, std::size_t bytes);

// What threads have written is seen.
void fence_view();

// What a copy has written is seen at once. It is an error to copy to other than dynamic memory.
void view_copy(const unsigned char* to, std::size_t bytes, Place place);

}  // namespace emulation
