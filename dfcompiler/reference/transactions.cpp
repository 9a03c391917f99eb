// What a memory does with lines: reads in order, reads of lines anywhere, each after the other or not.
#include <omp.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

constexpr size_t LINE = 64;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct alignas(LINE) Line {
  uint64_t next;
  uint64_t rest[7];
};

// Lines in one cycle that visits all of them in an order that no prefetcher follows.
std::vector<Line> cycle(size_t count) {
  std::vector<Line> lines(count);
  std::vector<uint64_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = i;
  uint64_t seed = 88172645463325252ull;
  for (size_t i = count - 1; i > 0; --i) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    std::swap(order[i], order[seed % (i + 1)]);
  }
  for (size_t i = 0; i < count; ++i) lines[order[i]].next = order[(i + 1) % count];
  return lines;
}

// Seconds of one round of `body(thread)` on all threads, the least seen.
template <typename Body>
double least(int threads, double seconds, Body body) {
  double best = 1e9;
  const double stop = now() + seconds;
  while (now() < stop) {
    const double start = now();
#pragma omp parallel num_threads(threads)
    body(omp_get_thread_num());
    const double took = now() - start;
    if (took < best) best = took;
  }
  return best;
}

}  // namespace

extern "C" {

// Bytes a second, in order, each thread in `bytes` of its own.
double dfc_bandwidth(int threads, size_t bytes, double seconds) {
  std::vector<std::vector<Line>> data;
  for (int t = 0; t < threads; ++t) data.push_back(cycle(bytes / LINE));
  std::vector<uint64_t> sinks(threads * 8);
  const double took = least(threads, seconds, [&](int t) {
    uint64_t sum[4] = {};
    const auto& lines = data[t];
    for (size_t i = 0; i + 4 <= lines.size(); i += 4)
      for (int j = 0; j < 4; ++j)
        for (int k = 0; k < 7; ++k) sum[j] += lines[i + j].rest[k];
    sinks[t * 8] = sum[0] + sum[1] + sum[2] + sum[3];
  });
  return double(bytes) * threads / took;
}

// Seconds for a line whose address the line before it says.
double dfc_latency(size_t bytes, double seconds) {
  const auto lines = cycle(bytes / LINE);
  constexpr int steps = 20000;
  volatile uint64_t sink = 0;
  uint64_t at = 0;
  const double took = least(1, seconds, [&](int) {
    for (int i = 0; i < steps; ++i) at = lines[at].next;
    sink = at;
  });
  return took / steps;
}

// Lines a second when the addresses of many are known.
double dfc_lines(int threads, size_t bytes, double seconds) {
  std::vector<std::vector<Line>> data;
  for (int t = 0; t < threads; ++t) data.push_back(cycle(bytes / LINE));
  constexpr int chains = 32, steps = 1000;
  std::vector<uint64_t> sinks(threads * 8);
  std::vector<uint64_t> starts(threads * chains);
  for (size_t i = 0; i < starts.size(); ++i) starts[i] = i * 977 % (bytes / LINE);
  const double took = least(threads, seconds, [&](int t) {
    uint64_t at[chains];
    for (int c = 0; c < chains; ++c) at[c] = starts[t * chains + c];
    for (int i = 0; i < steps; ++i)
      for (int c = 0; c < chains; ++c) at[c] = data[t][at[c]].next;
    for (int c = 0; c < chains; ++c) starts[t * chains + c] = at[c];
    sinks[t * 8] = at[0];
  });
  return double(chains) * steps * threads / took;
}

// Seconds for all threads to meet.
double dfc_meeting(int threads, double seconds) {
  constexpr int meetings = 200;
  const double took = least(threads, seconds, [&](int) {
    for (int i = 0; i < meetings; ++i) {
#pragma omp barrier
    }
  });
  return took / meetings;
}
}
