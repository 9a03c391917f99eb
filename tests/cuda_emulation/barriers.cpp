// The barriers of barriers.h.
#include "barriers.h"

#include <map>
#include <vector>

#include "fibers.h"

namespace emulation {

namespace {

struct Transfer {
  unsigned bytes;
  std::function<void()> copy;
};

// Attributes:
//   arrivals, pending: of a phase, and still missing in the running one.
//   bytes: expected by the running phase and not copied; `started` of them are on their way.
//   ended: how many phases have ended.
struct Phases {
  unsigned arrivals = 0, pending = 0;
  long bytes = 0, started = 0;
  unsigned long ended = 0;
  std::vector<Transfer> transfers;
};

struct Numbered {
  int threads = 0, arrived = 0;
  unsigned long ended = 0;
};

// What a word holds while it is a barrier.
constexpr unsigned long long MARK = 0x6d62617272696572;
constexpr long MOST_BYTES = (1 << 20) - 1;

std::map<unsigned long long*, Phases> barriers;
std::map<int, Numbered> numbered;

Phases& find(unsigned long long* word, Place place) {
  const auto found = barriers.find(word);
  if (found == barriers.end()) fail("a barrier that is not initialized", place);
  if (*word != MARK) fail("a barrier over which something was written", place);
  return found->second;
}

void end_phase(Phases& phases) {
  if (phases.pending > 0 || phases.bytes > 0) return;
  phases.pending = phases.arrivals;
  ++phases.ended;
}

void copy_all(Phases& phases) {
  const std::vector<Transfer> transfers = std::move(phases.transfers);
  phases.transfers.clear();
  for (const Transfer& transfer : transfers) {
    transfer.copy();
    phases.bytes -= transfer.bytes;
    phases.started -= transfer.bytes;
    note_progress();
  }
  if (!transfers.empty()) end_phase(phases);
}

Numbered& count_at(int number, int threads, Place place) {
  if (number < 1 || number > 15) fail("the number of a barrier is not between 1 and 15", place);
  if (threads < 32 || threads % 32) fail("a barrier of other than whole warps", place);
  Numbered& barrier = numbered[number];
  if (barrier.arrived > 0 && barrier.threads != threads)
    fail("threads arrive at one barrier with different counts", place);
  barrier.threads = threads;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.ended;
  }
  note_progress();
  return barrier;
}

}  // namespace

void init_barrier(unsigned long long* word, unsigned arrivals, Place place) {
  if (arrivals < 1 || arrivals >= 1u << 20) fail("arrivals are not between 1 and 2^20 - 1", place);
  if (barriers.count(word)) fail("a barrier that is initialized twice", place);
  *word = MARK;
  barriers[word] = {arrivals, arrivals};
}

void arrive(unsigned long long* word, unsigned expected_bytes, Place place) {
  Phases& phases = find(word, place);
  if (phases.pending == 0) fail("one arrival more than the phase of a barrier has", place);
  phases.bytes += expected_bytes;
  if (phases.bytes > MOST_BYTES) fail("a phase of 2^20 bytes or more", place);
  --phases.pending;
  end_phase(phases);
  note_progress();
}

void wait_for_phase(unsigned long long* word, unsigned parity, Place place) {
  if (parity > 1) fail("a parity is 0 or 1", place);
  auto ended = [=] {
    Phases& phases = find(word, place);
    if (phases.ended % 2 == parity) copy_all(phases);
    return phases.ended % 2 != parity;
  };
  auto missing = [=] {
    const Phases& phases = barriers.at(word);
    return "for the end of phase " + std::to_string(phases.ended) + ", where " +
           std::to_string(phases.pending) + " of " + std::to_string(phases.arrivals) +
           " arrivals and " + std::to_string(phases.bytes) + " bytes are missing";
  };
  wait_until("Barrier::wait", place, ended, missing);
  const unsigned long passed = find(word, place).ended;
  const auto [before, is_first] = current->passed.emplace(word, passed);
  if (!is_first && before->second == passed)
    fail("waits twice for the same phase of a barrier", place);
  before->second = passed;
}

void add_copy(unsigned long long* word, unsigned bytes, std::function<void()> copy, Place place) {
  Phases& phases = find(word, place);
  phases.started += bytes;
  if (phases.started > phases.bytes) fail("a copy of bytes that its barrier does not expect", place);
  phases.transfers.push_back({bytes, std::move(copy)});
  note_progress();
}

void sync_at(int number, int threads, Place place) {
  const unsigned long before = numbered[number].ended;
  const Numbered& barrier = count_at(number, threads, place);
  auto missing = [&barrier] {
    return std::to_string(barrier.threads - barrier.arrived) + " threads are missing";
  };
  wait_until("sync_at", place, [&] { return barrier.ended != before; }, missing);
}

void arrive_at(int number, int threads, Place place) { count_at(number, threads, place); }

void begin_barriers() {
  barriers.clear();
  numbered.clear();
}

std::string left_behind() {
  for (const auto& [word, phases] : barriers)
    if (!phases.transfers.empty()) return "copies into its shared memory that nothing waits for";
  return "";
}

}  // namespace emulation
