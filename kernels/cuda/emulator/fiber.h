// Stacks and the switch between them.
//
// A switch saves what the C calling convention keeps over a call and nothing else: tests of
// products switch some ten million times a second. Nothing here knows warps or blocks.
#pragma once
#include <sys/mman.h>
#include "runtime.h"

// Saves the running context in *save and goes on with the one at `to`.
extern "C" void emu_switch(void** save, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emu_switch, .-emu_switch
)");
constexpr u32 SAVED_WORDS = 6;
// Words above the saved ones of a new context: the entry, and a return address that is never used
// (it leaves the stack aligned as after a call).
inline void** first_frame(void** top, void (*entry)()) {
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  return top;
}
#elif defined(__aarch64__)
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, %function
emu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emu_switch, .-emu_switch
)");
constexpr u32 SAVED_WORDS = 11;
// x30, where `ret` goes, is the last of the first twelve saved words; eight of floats lie above it.
inline void** first_frame(void** top, void (*entry)()) {
  top -= 8;
  *--top = reinterpret_cast<void*>(entry);
  return top;
}
#else
#error "no fiber switch for this processor"
#endif

constexpr size_t STACK_BYTES = 64 << 10;
constexpr size_t PAGE_BYTES = 4096;

// Memory with an unreadable page (or more, where pages are larger) on both sides.
inline u8* guarded_map(size_t bytes, size_t page) {
  u8* all = static_cast<u8*>(mmap(nullptr, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (all == MAP_FAILED) return nullptr;
  if (mprotect(all + page, bytes, PROT_READ | PROT_WRITE) != 0) {
    munmap(all, bytes + 2 * page);
    return nullptr;
  }
  return all + page;
}
inline void guarded_unmap(u8* at, size_t bytes, size_t page) { munmap(at - page, bytes + 2 * page); }
