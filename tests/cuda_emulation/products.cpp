// Products that a thread starts and waits for later: their sums are poison in between.
#include <cstring>

#include "fibers.h"

namespace emulation {

void fence_sums() { current->products.fenced = true; }

float* claim_sums(float* sums, int count, Place place) {
  Products& products = current->products;
  if (!products.fenced) fail("a product whose registers were not fenced", place);
  Sums& kept = products.sums[sums];
  if (kept.values.empty()) {
    kept.values.assign(sums, sums + count);
    std::memset(sums, POISON, count * sizeof *sums);
  }
  kept.group = products.done + products.closed.size();
  return kept.values.data();
}

void add_product(std::function<void()> product) {
  current->products.open.push_back(std::move(product));
}

void commit_products() {
  Products& products = current->products;
  products.closed.push_back(std::move(products.open));
  products.open.clear();
}

void wait_for_products(int pending) {
  Products& products = current->products;
  for (; products.closed.size() > std::size_t(pending); products.closed.pop_front(), ++products.done)
    for (const auto& product : products.closed.front()) product();
  std::erase_if(products.sums, [&](const auto& entry) {
    const auto& [sums, kept] = entry;
    if (kept.group >= products.done) return false;
    std::memcpy(sums, kept.values.data(), kept.values.size() * sizeof(float));
    products.fenced = false;
    return true;
  });
}

}  // namespace emulation
