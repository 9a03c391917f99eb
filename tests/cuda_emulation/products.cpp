// Products that a thread starts and waits for later: their sums are poison in between.
#include <cstring>

#include "fibers.h"

namespace emulation {

float* claim_sums(float* sums, int count) {
  std::vector<float>& kept = current->products.sums[sums];
  if (kept.empty()) {
    kept.assign(sums, sums + count);
    std::memset(sums, POISON, count * sizeof *sums);
  }
  return kept.data();
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
  for (; products.closed.size() > std::size_t(pending); products.closed.pop_front())
    for (const auto& product : products.closed.front()) product();
  if (!products.closed.empty() || !products.open.empty()) return;
  for (const auto& [sums, kept] : products.sums)
    std::memcpy(sums, kept.data(), kept.size() * sizeof(float));
  products.sums.clear();
}

}  // namespace emulation
