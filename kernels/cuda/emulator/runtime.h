// What a kernel compiled for the CPU and the runtime that runs it know of each other.
//
// One fiber a CUDA thread, one block at a time. A fiber runs until it has to meet others: the lanes
// of its warp at a collective operation, or its block at a barrier. Who goes on is drawn from a
// seed, so a forgotten barrier gives wrong results for some seed. The runtime is one library that
// every kernel library is resolved against; nothing here knows a kernel or Rust.
#pragma once
#include <cstddef>
#include <cstdint>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

namespace emu {

struct Index { u32 x, y, z; };

// Twin of `Launch` in src/emulator/library.rs.
struct Launch {
  u32 grid[3];
  u32 threads;
  u32 shared_bytes;
};

enum Operation : u32 { NONE, SHUFFLE, VOTE, SYNCWARP, LOAD_MATRIX, MMA_BF16, MMA_F16, SYNCTHREADS, EXIT };

// What a lane gives to a collective operation, and what it gets.
union alignas(64) Slot {
  u64 word;
  struct { u32 a[4]; u32 b[2]; float d[4]; } mma;
  struct { const void* address; alignas(16) u32 row[4]; } matrix;
};

struct Warp {
  u32 ready;    // lanes that can run
  u32 arrived;  // lanes that wait at `operation`
  u32 present;  // lanes that exist and have not exited
  u32 operation;
  u32 turn;           // which of the slots the next operation uses
  Slot slots[2][32];  // two: lanes still read one while others already fill the other
};

struct Copy {
  void* to;
  const void* from;  // null: zeros
  u32 group;
};
// More copies under way than any sensible kernel has; a forgotten wait ends here.
constexpr u32 COPIES_MAX = 512;

struct Fiber {
  void* sp;  // null: not started
  u8* stack;
  Index thread;
  u32 lane;
  u32 warp;
  u32 waits_at;
  u32 copies;
  u32 group;  // groups committed by now
};

struct State {
  Fiber* current;
  u8* shared;
  Index block, grid, size;
};

}  // namespace emu

#define EMU_API extern "C" __attribute__((visibility("default")))

// The emulated GPU whose kernel runs on this OS thread.
extern "C" __thread emu::State* emu_state __attribute__((tls_model("initial-exec"), visibility("default")));

// Runs every block of a grid; 0, or 1 with a message. `anchor` lies in the thread-local memory that
// holds the kernel's static shared arrays.
EMU_API int emu_run(emu::State* state, const emu::Launch* launch, const char* name, void (*body)(const void*), const void* args,
                    size_t args_bytes, const void* anchor);
// The slot of this lane in its warp's next collective operation; lane i of the warp is at [i - lane].
EMU_API emu::Slot* emu_slot();
// Returns once all lanes of the warp have come.
EMU_API void emu_meet(u32 operation, u32 mask);
EMU_API void emu_barrier();
EMU_API void emu_copy(void* to, const void* from);
EMU_API void emu_copy_commit();
EMU_API void emu_copy_wait(u32 under_way);
// Ends the launch with a message.
EMU_API void emu_fail(const char* reason) __attribute__((noreturn));
