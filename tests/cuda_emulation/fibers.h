// Threads of one block as fibers of one host thread, and faults as the end of a fiber's turn.
#pragma once

#include <csetjmp>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <signal.h>
#include <ucontext.h>

#include "engine.h"

namespace emulation {

struct Copy {
  void* to;
  const void* from;
  int bytes, room;
};

// The true values of sums that products add to, and the number of the last group that does.
struct Sums {
  std::vector<float> values;
  unsigned long group = 0;
};

// Products by group: `done` groups have happened, then come the closed ones and the open one.
// `fenced`: registers have been, since sums last came back.
struct Products {
  std::map<float*, Sums> sums;
  unsigned long done = 0;
  bool fenced = false;
  std::deque<std::vector<std::function<void()>>> closed;
  std::vector<std::function<void()>> open;
};

enum class State { ready, at_collective, at_barrier, waiting, done };

// Attributes:
//   begun: whether `resumed` is where it goes on; else it begins at the start of its stack.
//   operation, place: what it waits for, and where.
//   mask, argument, complete: of the collective operation at which it waits.
//   missing: what it waits for, in words.
//   passed: at each barrier in shared memory, the phases that had ended when it last went on.
//   predicate, count: what it hands to the block's barrier, and what it gets.
//   open, closed: its copies into shared memory, by group.
struct Fiber {
  char* stack = nullptr;
  ucontext_t start;
  std::jmp_buf resumed;
  bool begun = false;
  State state = State::ready;
  uint3 thread;
  const char* operation = "";
  Place place;
  unsigned mask = 0;
  void* argument = nullptr;
  Complete complete = nullptr;
  std::function<std::string()> missing;
  std::map<const void*, unsigned long> passed;
  bool predicate = false;
  int count = 0;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> closed;
  Products products;
};

extern std::vector<std::unique_ptr<Fiber>> fibers;
extern Fiber* current;

// Makes as many as a block has threads; they are used again by every later block.
void make_fibers(unsigned count);

// What every thread runs.
void set_body(void (*call)(void*), void* arguments);

// Runs a fiber until it yields, ends, or leaves.
void resume(Fiber& fiber);

// Back to whoever resumed the running fiber: to go on later, or never.
void yield();
[[noreturn]] void leave();

// Begins every fiber anew: their stacks hold what was not finished.
void abandon_fibers();

// While it lives, a fault of a fiber calls `explain` with what happened, and the fiber leaves.
class Faults {
 public:
  explicit Faults(void (*explain)(const std::string& what));
  ~Faults();

 private:
  struct sigaction before_[3];
  stack_t stack_before_;
};

}  // namespace emulation
