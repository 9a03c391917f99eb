// The view of async_view.h.
#include "async_view.h"

#include <cstring>
#include <vector>

namespace emulation {

std::ptrdiff_t view_offset = 0;

namespace {

const unsigned char* shared = nullptr;
std::vector<unsigned char> view;

}  // namespace

void begin_view(const unsigned char* memory, std::size_t bytes) {
  shared = memory;
  view.assign(bytes, POISON);
  view_offset = view.data() - shared;
}

void fence_view() {
  if (!view.empty()) std::memcpy(view.data(), shared, view.size());
}

void view_copy(const unsigned char* to, std::size_t bytes, Place place) {
  if (to < shared || to + bytes > shared + view.size())
    fail("a copy to other than dynamic shared memory", place);
  std::memcpy(view.data() + (to - shared), to, bytes);
}

}  // namespace emulation
