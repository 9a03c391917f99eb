#include "fibers.h"

#include <sys/mman.h>

#include "memory.h"

namespace emulation {

std::vector<std::unique_ptr<Fiber>> fibers;
Fiber* current = nullptr;

namespace {

constexpr std::size_t STACK_BYTES = 256 << 10, PAGE = 4096;
constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL};

std::jmp_buf scheduler;
void (*body)(void*) = nullptr;
void* body_arguments = nullptr;
void (*explain_fault)(const std::string&) = nullptr;

void run_bodies() {
  for (;;) {  // a fiber serves one thread after another
    body(body_arguments);
    current->state = State::done;
    yield();
  }
}

void on_fault(int signal, siginfo_t* info, void*) {
  explain_fault(signal == SIGILL
                    ? "uses an index outside of an array, or an address that is not aligned"
                    : "accesses " + describe_address(info->si_addr));
  leave();
}

}  // namespace

void make_fibers(unsigned count) {
  while (fibers.size() < count) {
    auto fiber = std::make_unique<Fiber>();
    void* memory = mmap(nullptr, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(memory, PAGE, PROT_NONE);  // a stack that overflows is a fault
    fiber->stack = static_cast<char*>(memory) + PAGE;
    fibers.push_back(std::move(fiber));
  }
}

void set_body(void (*call)(void*), void* arguments) {
  body = call;
  body_arguments = arguments;
}

void resume(Fiber& fiber) {
  current = &fiber;
  if (_setjmp(scheduler)) return;
  if (fiber.begun) _longjmp(fiber.resumed, 1);
  fiber.begun = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack;
  fiber.start.uc_stack.ss_size = STACK_BYTES;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, run_bodies, 0);
  setcontext(&fiber.start);
}

void yield() {
  if (!_setjmp(current->resumed)) _longjmp(scheduler, 1);
}

void leave() { _longjmp(scheduler, 1); }

void abandon_fibers() {
  for (auto& fiber : fibers) fiber->begun = false;
}

Faults::Faults(void (*explain)(const std::string&)) {
  explain_fault = explain;
  static char stack[64 << 10];
  const stack_t alternate{stack, 0, sizeof stack};
  sigaltstack(&alternate, &stack_before_);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &action, &before_[i]);
}

Faults::~Faults() {
  for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &before_[i], nullptr);
  sigaltstack(&stack_before_, nullptr);
}

}  // namespace emulation
