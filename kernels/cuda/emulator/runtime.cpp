// Runs the blocks of a grid, one fiber a thread, and finds what a GPU would not forgive.
//
// Orders are drawn from a seed: which lane and warp goes on, which block comes first, whether a
// background copy lands at once or at its wait. Memory that a kernel may not count on is filled
// with 0xff, which is NaN in every floating-point format. A fault (a divergent barrier, an access
// outside of what was claimed) ends the launch with a message instead of the process.
#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "fiber.h"
#include "tensor.h"

__thread emu::State* emu_state;

namespace {

using emu::Copy;
using emu::Fiber;
using emu::Index;
using emu::Operation;
using emu::Slot;
using emu::Warp;

constexpr u32 ALL = 0xffffffffu;
constexpr u32 THREADS_MAX = 1024;
constexpr size_t SHARED_MAX = 256 << 10;
constexpr size_t ARGS_MAX = 4096;
constexpr u8 POISON = 0xff;
// Bytes in front of dynamic shared memory that must stay as they were.
constexpr size_t FRONT_BYTES = 256;

const char* const OPERATIONS[] = {"nothing", "a shuffle", "a vote", "__syncwarp", "ldmatrix", "mma", "mma", "__syncthreads", "its end"};

struct Machine : emu::State {
  Fiber fibers[THREADS_MAX];
  Warp warps[THREADS_MAX / 32];
  u32 ready_warps;
  u32 waiting;  // threads at the block's barrier
  u32 exited;
  u64 random;
  void* main_sp;
  void (*body)(const void*);
  const char* kernel;
  bool running, failed;
  u8* room;  // SHARED_MAX bytes between guards; `shared` lies at its end
  size_t shared_bytes;
  u8* statics;
  size_t statics_bytes;
  u8* free_stacks[THREADS_MAX];
  u8* stacks[THREADS_MAX];
  u32 free_count, stack_count;
  Copy* copies;  // COPIES_MAX for each thread
  size_t page;
  int signal;
  u8* fault_address;
  u8* call_site;  // where the running fiber called the runtime
  u8* fault_instruction;
  const char* fault_file;
  size_t fault_offset;
  char message[512];
  alignas(64) u8 args[ARGS_MAX];
};

Machine& machine() { return *static_cast<Machine*>(emu_state); }

// For functions that a kernel calls: the machine, and for faults where the call is.
#define CALLED() called(static_cast<u8*>(__builtin_return_address(0)))
Machine& called(u8* back) {
  Machine& m = machine();
  m.call_site = back - 1;
  return m;
}

u64 draw(Machine& m) {  // xorshift64
  m.random ^= m.random << 13;
  m.random ^= m.random >> 7;
  m.random ^= m.random << 17;
  return m.random;
}

// A set bit of `mask`, which is not 0.
u32 pick(u32 mask, u64 random) {
  u32 turn = random & 31;
  u32 turned = mask >> turn | mask << ((32 - turn) & 31);
  return (__builtin_ctz(turned) + turn) & 31;
}

__attribute__((noreturn)) void leave_launch(Machine& m) {
  m.failed = true;
  void* never;
  emu_switch(&never, m.main_sp);
  __builtin_unreachable();
}

// Starts the message; gives its length.
int write_place(Machine& m) {
  return snprintf(m.message, sizeof m.message, "kernel %s, block (%u, %u, %u), thread %u: ", m.kernel, m.block.x, m.block.y, m.block.z,
                  m.current->thread.x);
}

__attribute__((noreturn, format(printf, 2, 3))) void fail(Machine& m, const char* format, ...) {
  m.fault_instruction = m.call_site;
  int n = write_place(m);
  va_list list;
  va_start(list, format);
  vsnprintf(m.message + n, sizeof m.message - n, format, list);
  va_end(list);
  leave_launch(m);
}

// Dirties what the next call's locals will lie in.
__attribute__((noinline)) void poison_stack() {
  u8 below[2048];
  memset(below, POISON, sizeof below);
  asm volatile("" ::"r"(below) : "memory");
}

// Who goes on, the running fiber included; null when nobody can.
Fiber* next(Machine& m) {
  if (!m.ready_warps) return nullptr;
  u64 random = draw(m);
  u32 warp = m.current->warp;
  // Mostly the same warp, whose stacks are in cache.
  if (!m.warps[warp].ready || (random >> 40 & 15) == 0) warp = pick(m.ready_warps, random >> 20);
  return &m.fibers[warp * 32 + pick(m.warps[warp].ready, random >> 30)];
}

void run_threads();

void start(Machine& m, Fiber& f) {
  if (!m.free_count) {
    u8* stack = guarded_map(STACK_BYTES, m.page);
    if (!stack) fail(m, "no memory for its stack");
    m.stacks[m.stack_count++] = stack;
    m.free_stacks[m.free_count++] = stack;
  }
  f.stack = m.free_stacks[--m.free_count];
  void** top = first_frame(reinterpret_cast<void**>(f.stack + STACK_BYTES), run_threads);
  top -= SAVED_WORDS;
  memset(top, POISON, SAVED_WORDS * sizeof *top);
  f.sp = top;
}

void go(Machine& m, Fiber* to) {
  Fiber* from = m.current;
  if (from == to) return;
  if (!to->sp) start(m, *to);
  m.current = to;
  emu_switch(&from->sp, to->sp);
}

void stop_running(Machine& m, Fiber& f) {
  Warp& w = m.warps[f.warp];
  w.ready &= ~(1u << f.lane);
  if (!w.ready) m.ready_warps &= ~(1u << f.warp);
}

// Lets others run until this fiber is ready again.
void wait(Machine& m, Fiber& f, Operation at) {
  f.waits_at = at;
  stop_running(m, f);
  Fiber* to = next(m);
  if (!to) {
    for (u32 i = 0; i < m.size.x; i++) {
      const Fiber& other = m.fibers[i];
      if (other.waits_at != at && other.waits_at != emu::NONE)
        fail(m, "divergent barrier: it waits at %s, thread %u at %s", OPERATIONS[at], i, OPERATIONS[other.waits_at]);
    }
    fail(m, "divergent barrier: it waits at %s and nobody can run", OPERATIONS[at]);
  }
  go(m, to);
  f.waits_at = emu::NONE;
}

void end_thread(Machine& m, Fiber& f) {
  Warp& w = m.warps[f.warp];
  stop_running(m, f);
  w.present &= ~(1u << f.lane);
  f.waits_at = emu::EXIT;
  if (w.arrived)
    fail(m, "divergent barrier: it ended while thread %u waits at %s", f.warp * 32 + pick(w.arrived, 0), OPERATIONS[w.operation]);
  for (u32 i = 0; m.waiting && i < m.size.x; i++)
    if (m.fibers[i].waits_at == emu::SYNCTHREADS)
      fail(m, "divergent barrier: it ended while thread %u waits at __syncthreads", i);
  m.exited++;
}

// The first function on a stack: threads one after the other while they end without a switch.
void run_threads() {
  Machine& m = machine();
  for (;;) {
    poison_stack();
    m.body(m.args);
    Fiber& f = *m.current;
    m.call_site = nullptr;
    end_thread(m, f);
    Fiber* to = next(m);
    if (!to) {
      // Nobody waits (end_thread has looked), so all have ended.
      void* never;
      emu_switch(&never, m.main_sp);
    }
    m.current = to;
    if (to->sp) {
      m.free_stacks[m.free_count++] = f.stack;
      emu_switch(&f.sp, to->sp);
    }
    to->stack = f.stack;
    to->sp = f.stack;  // Not null: it has started. The first switch sets it.
  }
}

bool poisoned(const u8* from, const u8* to) {
  for (; from < to; from++)
    if (*from != POISON) return false;
  return true;
}

void run_block(Machine& m) {
  u32 threads = m.size.x, warps = (threads + 31) / 32;
  u8* end = m.room + SHARED_MAX;
  memset(m.shared - FRONT_BYTES, POISON, end - m.shared + FRONT_BYTES);
  memset(m.statics, POISON, m.statics_bytes);
  m.exited = m.waiting = 0;
  m.ready_warps = warps == 32 ? ALL : (1u << warps) - 1;
  for (u32 w = 0; w < warps; w++) {
    u32 lanes = threads - w * 32;
    m.warps[w].ready = m.warps[w].present = lanes >= 32 ? ALL : (1u << lanes) - 1;
    m.warps[w].arrived = 0;
  }
  for (u32 i = 0; i < threads; i++) m.fibers[i] = Fiber{nullptr, nullptr, {i, 0, 0}, i & 31, i / 32, emu::NONE, 0, 0};
  memcpy(m.free_stacks, m.stacks, m.stack_count * sizeof *m.stacks);
  m.free_count = m.stack_count;
  m.current = &m.fibers[0];
  m.current = next(m);
  start(m, *m.current);
  emu_switch(&m.main_sp, m.current->sp);
  if (m.failed) return;
  if (!poisoned(m.shared - FRONT_BYTES, m.shared) || !poisoned(m.shared + m.shared_bytes, end)) {
    snprintf(m.message, sizeof m.message, "kernel %s, block (%u, %u, %u): writes outside of its %zu bytes of dynamic shared memory",
             m.kernel, m.block.x, m.block.y, m.block.z, m.shared_bytes);
    m.failed = true;
  }
}

u64 common_divisor(u64 a, u64 b) {
  while (b) {
    u64 rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

struct Statics {
  const u8* anchor;
  u8* at;
  size_t bytes;
};

int find_statics(dl_phdr_info* info, size_t, void* data) {
  Statics& s = *static_cast<Statics*>(data);
  u8* block = static_cast<u8*>(info->dlpi_tls_data);
  for (int i = 0; block && i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
    size_t bytes = info->dlpi_phdr[i].p_memsz;
    if (s.anchor >= block && s.anchor < block + bytes) {
      s.at = block;
      s.bytes = bytes;
      return 1;
    }
  }
  return 0;
}

struct sigaction old_actions[4];
// What the checks that the compiler adds end in is SIGILL or, on some processors, SIGTRAP.
const int SIGNALS[4] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};

void on_signal(int signal, siginfo_t* info, void* context) {
  if (emu_state && machine().running) {
    Machine& m = machine();
    ucontext_t* at = static_cast<ucontext_t*>(context);
    m.signal = signal;
    m.fault_address = static_cast<u8*>(info->si_addr);
#if defined(__x86_64__)
    m.fault_instruction = reinterpret_cast<u8*>(at->uc_mcontext.gregs[REG_RIP]);
    // The processor names no address for a misaligned vector access.
    if (signal == SIGSEGV && info->si_code == SI_KERNEL) m.signal = SIGILL;
#else
    m.fault_instruction = reinterpret_cast<u8*>(at->uc_mcontext.pc);
#endif
    leave_launch(m);
  }
  for (int i = 0; i < 4; i++) {
    if (SIGNALS[i] != signal) continue;
    const struct sigaction& old = old_actions[i];
    if (old.sa_flags & SA_SIGINFO) return old.sa_sigaction(signal, info, context);
    if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(signal);
    sigaction(signal, &old, nullptr);  // The instruction runs again and meets the default.
  }
}

void install_handlers() {
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  // Not blocked while handled: a fault leaves the handler without returning.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &action, &old_actions[i]);
}

void find_instruction(Machine& m) {
  Dl_info place;
  if (!m.fault_instruction || !dladdr(m.fault_instruction, &place) || !place.dli_fname) return;
  m.fault_file = place.dli_fname;
  m.fault_offset = m.fault_instruction - static_cast<u8*>(place.dli_fbase);
}

// What a signal was about, once its launch has been left.
void describe_signal(Machine& m) {
  int n = write_place(m);
  char* rest = m.message + n;
  size_t room = sizeof m.message - n;
  u8* address = m.fault_address;
  u8* stack = m.current->stack;
  u8* end = m.room + SHARED_MAX;
  bool memory = m.signal == SIGSEGV || m.signal == SIGBUS;
  if (!memory) m.fault_address = nullptr;
  if (!memory) {
    snprintf(rest, room, "a misaligned access, an index outside of its array, a shift too far or a division by zero");
  } else if (stack && address < stack && address >= stack - m.page) {
    m.fault_address = nullptr;
    snprintf(rest, room, "its stack is full");
  } else if (address >= end && address < end + m.page) {
    m.fault_address = nullptr;
    size_t past = static_cast<size_t>(address - m.shared) - m.shared_bytes;
    snprintf(rest, room, "accesses %zu bytes behind the end of its %zu bytes of dynamic shared memory", past, m.shared_bytes);
  } else {
    snprintf(rest, room, "accesses address 0x%llx", static_cast<u64>(reinterpret_cast<uintptr_t>(address)));
  }
}

bool is_shared(const Machine& m, const void* p, size_t bytes) {
  const u8* at = static_cast<const u8*>(p);
  return (at >= m.shared && at + bytes <= m.shared + m.shared_bytes) ||
         (at >= m.statics && at + bytes <= m.statics + m.statics_bytes);
}

bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

void land(const Copy& c) {
  if (c.from) memcpy(c.to, c.from, 16);
  else memset(c.to, 0, 16);
}

// What the last lane does for all.
void finish(u32 operation, Slot* slots) {
  if (operation == emu::MMA_BF16) multiply_add<false>(slots);
  else if (operation == emu::MMA_F16) multiply_add<true>(slots);
  else if (operation == emu::LOAD_MATRIX)
    for (u32 i = 0; i < 32; i++) memcpy(slots[i].matrix.row, slots[i].matrix.address, 16);
}

}  // namespace

EMU_API emu::Slot* emu_slot() {
  Machine& m = machine();
  Warp& w = m.warps[m.current->warp];
  return &w.slots[w.turn & 1][m.current->lane];
}

EMU_API void emu_meet(u32 operation, u32 mask) {
  Machine& m = CALLED();
  Fiber& f = *m.current;
  Warp& w = m.warps[f.warp];
  u32 lane = 1u << f.lane;
  if (mask != ALL) fail(m, "%s with lane mask 0x%08x: only the full warp is supported", OPERATIONS[operation], mask);
  if (w.present != ALL) fail(m, "%s of a warp whose lane %u has ended or never was", OPERATIONS[operation], pick(~w.present, 0));
  if (!w.arrived) w.operation = operation;
  if (w.operation != operation) {
    u32 other = f.warp * 32 + pick(w.arrived, 0);
    fail(m, "divergent warp: it is at %s, thread %u at %s", OPERATIONS[operation], other, OPERATIONS[w.operation]);
  }
  Slot* slots = w.slots[w.turn & 1];
  if (operation == emu::LOAD_MATRIX) {
    const void* row = slots[f.lane].matrix.address;
    if (!aligned16(row) || !is_shared(m, row, 16)) fail(m, "ldmatrix of a row that is not 16 aligned bytes of shared memory");
  }
  w.arrived |= lane;
  if (w.arrived != ALL) return wait(m, f, static_cast<Operation>(operation));
  finish(operation, slots);
  w.arrived = 0;
  w.turn++;
  w.ready = ALL;
  // Mostly on with this lane: it saves a switch.
  if ((draw(m) >> 33 & 7) == 0) go(m, next(m));
}

EMU_API void emu_barrier() {
  Machine& m = CALLED();
  Fiber& f = *m.current;
  if (m.exited) {
    u32 other = 0;
    while (m.fibers[other].waits_at != emu::EXIT) other++;
    fail(m, "divergent barrier: it is at __syncthreads, thread %u has ended", other);
  }
  if (++m.waiting < m.size.x) return wait(m, f, emu::SYNCTHREADS);
  m.waiting = 0;
  u32 warps = (m.size.x + 31) / 32;
  m.ready_warps = warps == 32 ? ALL : (1u << warps) - 1;
  for (u32 w = 0; w < warps; w++) m.warps[w].ready = m.warps[w].present;
  go(m, next(m));
}

EMU_API void emu_copy(void* to, const void* from) {
  Machine& m = CALLED();
  Fiber& f = *m.current;
  if (!aligned16(to) || !aligned16(from)) fail(m, "cp.async with an address that is not a multiple of 16");
  if (!is_shared(m, to, 16)) fail(m, "cp.async to what is not shared memory");
  Copy copy = {to, from, f.group};
  if (draw(m) >> 37 & 1) return land(copy);
  if (f.copies == emu::COPIES_MAX) fail(m, "%u background copies under way: is a wait missing?", f.copies);
  memset(to, POISON, 16);
  m.copies[(&f - m.fibers) * emu::COPIES_MAX + f.copies++] = copy;
}

EMU_API void emu_copy_commit() { machine().current->group++; }

EMU_API void emu_copy_wait(u32 under_way) {
  Machine& m = machine();
  Fiber& f = *m.current;
  Copy* list = m.copies + (&f - m.fibers) * emu::COPIES_MAX;
  u32 kept = 0;
  // Group g is done when at most `under_way` groups were committed after it.
  for (u32 i = 0; i < f.copies; i++) {
    if (list[i].group + under_way < f.group) land(list[i]);
    else list[kept++] = list[i];
  }
  f.copies = kept;
}

EMU_API void emu_fail(const char* reason) { fail(CALLED(), "%s", reason); }

EMU_API int emu_run(emu::State* state, const emu::Launch* launch, const char* name, void (*body)(const void*), const void* args,
                    size_t args_bytes, const void* anchor) {
  Machine& m = *static_cast<Machine*>(state);
  m.kernel = name;
  m.body = body;
  m.failed = false;
  m.signal = 0;
  m.fault_address = nullptr;
  m.fault_instruction = nullptr;
  m.fault_file = nullptr;
  m.grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
  m.size = {launch->threads, 1, 1};
  m.shared_bytes = launch->shared_bytes;
  if (m.size.x > THREADS_MAX || m.shared_bytes + FRONT_BYTES + 128 > SHARED_MAX || args_bytes > ARGS_MAX) __builtin_trap();
  m.shared = m.room + SHARED_MAX - (m.shared_bytes + 127) / 128 * 128;
  memcpy(m.args, args, args_bytes);
  Statics statics = {static_cast<const u8*>(anchor), nullptr, 0};
  dl_iterate_phdr(find_statics, &statics);
  m.statics = statics.at;
  m.statics_bytes = statics.bytes;
  emu_state = &m;
  m.running = true;
  u64 blocks = static_cast<u64>(m.grid.x) * m.grid.y * m.grid.z;
  u64 step = draw(m) % blocks, first = draw(m) % blocks;
  while (common_divisor(step, blocks) != 1) step = (step + 1) % blocks;
  for (u64 i = 0; i < blocks && !m.failed; i++) {
    u64 block = (i * step + first) % blocks;
    u64 line = block / m.grid.x;
    m.block = {static_cast<u32>(block % m.grid.x), static_cast<u32>(line % m.grid.y), static_cast<u32>(line / m.grid.y)};
    run_block(m);
  }
  m.running = false;
  emu_state = nullptr;
  if (m.signal) describe_signal(m);
  find_instruction(m);
  return m.failed;
}

EMU_API emu::State* emu_new(u64 seed) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install_handlers);
  size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* at = mmap(nullptr, sizeof(Machine), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  size_t copies = sizeof(Copy) * THREADS_MAX * emu::COPIES_MAX;
  void* list = mmap(nullptr, copies, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  u8* room = guarded_map(SHARED_MAX, page);
  if (at == MAP_FAILED || list == MAP_FAILED || !room) return nullptr;
  Machine* m = static_cast<Machine*>(at);
  m->page = page;
  m->room = room;
  m->copies = static_cast<Copy*>(list);
  // Never 0, and far apart for seeds that are near each other.
  m->random = (seed + 1) * 0x9e3779b97f4a7c15ull | 1;
  for (int i = 0; i < 8; i++) draw(*m);
  return m;
}

EMU_API void emu_free(emu::State* state) {
  Machine* m = static_cast<Machine*>(state);
  for (u32 i = 0; i < m->stack_count; i++) guarded_unmap(m->stacks[i], STACK_BYTES, m->page);
  guarded_unmap(m->room, SHARED_MAX, m->page);
  munmap(m->copies, sizeof(Copy) * THREADS_MAX * emu::COPIES_MAX);
  munmap(m, sizeof(Machine));
}

EMU_API const char* emu_message(const emu::State* state) { return static_cast<const Machine*>(state)->message; }
// The address that the launch failed on; 0 when it did not fail on one.
EMU_API u64 emu_fault_address(const emu::State* state) {
  return reinterpret_cast<uintptr_t>(static_cast<const Machine*>(state)->fault_address);
}
// The library of the failing instruction, null if none, and where in it.
EMU_API const char* emu_fault_place(const emu::State* state, u64* offset) {
  const Machine* m = static_cast<const Machine*>(state);
  *offset = m->fault_offset;
  return m->fault_file;
}
// `bytes`, rounded up to whole pages, between pages that nobody may touch.
EMU_API u8* emu_map(u64 bytes) {
  size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return guarded_map((bytes + page - 1) / page * page, page);
}
EMU_API void emu_unmap(u8* at, u64 bytes) {
  size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  guarded_unmap(at, (bytes + page - 1) / page * page, page);
}
