// CUDA's names on a CPU: included before every kernel file, in place of the compiler's own.
//
// Each wrapper that ops/device.cuh has around an instruction has a body here that does what PTX
// documents, bit for bit where PTX defines the bits. Warp operations and barriers are calls of the
// runtime. Not modelled: the order in which memory operations become visible, bank conflicts, time.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "runtime.h"

typedef signed char i8;
typedef long long i64;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static const
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
// The thread-local memory of a kernel's library holds nothing else, and is poisoned for each block.
#define __shared__ static thread_local
#define SHARED_ARRAY(T, name, count) __shared__ __align__(16) T name[count]

#define DI inline
#define SHARED_BYTES(name) u8* const name = emu_state->shared
#define KERNEL(name, Args, most_threads, min_blocks)                                                        \
  static void name(const Args& a);                                                                          \
  EMU_API u32 name##_args() { return sizeof(Args); }                                                        \
  EMU_API u32 name##_threads() { return most_threads; }                                                     \
  EMU_API int name##_run(emu::State* state, const emu::Launch* launch, const void* args) {                  \
    static_assert((most_threads) >= 1 && (most_threads) <= 1024 && (min_blocks) >= 0, "launch bounds");     \
    return emu_run(state, launch, #name, [](const void* a) { name(*static_cast<const Args*>(a)); }, args,   \
                   sizeof(Args), &emu::anchor);                                                             \
  }                                                                                                         \
  static void name(const Args& a)

namespace emu {
static thread_local u8 anchor;
}

#define threadIdx (emu_state->current->thread)
#define blockIdx (emu_state->block)
#define blockDim (emu_state->size)
#define gridDim (emu_state->grid)

template <class T> DI T* at(u64 address) { return reinterpret_cast<T*>(address); }

// ---- bits

template <class To, class From_> DI To emu_bits(From_ x) {
  static_assert(sizeof(To) == sizeof(From_), "same size");
  To r;
  memcpy(&r, &x, sizeof r);
  return r;
}
DI float as_float(u32 x) { return emu_bits<float>(x); }
DI u32 as_bits(float x) { return emu_bits<u32>(x); }
DI float __uint_as_float(u32 x) { return as_float(x); }
DI u32 __float_as_uint(float x) { return as_bits(x); }
DI float __int_as_float(int x) { return emu_bits<float>(x); }
DI int __float_as_int(float x) { return emu_bits<int>(x); }
DI int __popc(u32 x) { return __builtin_popcount(x); }
DI int __popcll(u64 x) { return __builtin_popcountll(x); }
DI int __clz(int x) { return x ? __builtin_clz(static_cast<u32>(x)) : 32; }
DI int __clzll(i64 x) { return x ? __builtin_clzll(static_cast<u64>(x)) : 64; }
DI int __ffs(int x) { return __builtin_ffs(x); }
DI int __ffsll(i64 x) { return __builtin_ffsll(x); }
DI u32 __brev(u32 x) {
  u32 r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
  return r;
}
DI u32 __umulhi(u32 a, u32 b) { return static_cast<u32>(static_cast<u64>(a) * b >> 32); }
DI int __mulhi(int a, int b) { return static_cast<int>(static_cast<i64>(a) * b >> 32); }
DI u64 __umul64hi(u64 a, u64 b) { return static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64); }
DI u32 __funnelshift_l(u32 low, u32 high, u32 by) { return static_cast<u32>(((static_cast<u64>(high) << 32 | low) << (by & 31)) >> 32); }
DI u32 __funnelshift_r(u32 low, u32 high, u32 by) { return static_cast<u32>((static_cast<u64>(high) << 32 | low) >> (by & 31)); }
// Nibble i of `order` picks byte i: bits 0..2 which of the eight, bit 3 its sign instead.
DI u32 __byte_perm(u32 a, u32 b, u32 order) {
  u64 both = static_cast<u64>(b) << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; i++) {
    u32 byte = static_cast<u32>(both >> 8 * (order >> 4 * i & 7)) & 0xff;
    if (order >> 4 * i & 8) byte = byte & 0x80 ? 0xff : 0;
    r |= byte << 8 * i;
  }
  return r;
}
DI u32 permute(u32 a, u32 b, u32 order) { return __byte_perm(a, b, order); }
DI u64 in_register(u64 x) { return x; }
DI u32 and_or(u32 a, u32 b, u32 c) { return (a & b) | c; }
DI int __dp4a(int a, int b, int c) {
  u32 sum = static_cast<u32>(c);
  for (int i = 0; i < 4; i++) sum += static_cast<u32>(static_cast<i8>(a >> 8 * i) * static_cast<i8>(b >> 8 * i));
  return static_cast<int>(sum);
}
DI u32 __dp4a(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 4; i++) c += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
  return c;
}

// ---- 16-bit floats

DI float f16_to_f32(u16 x) {
  u32 magnitude = (x & 0x7fffu) << 13;
  u32 bits = as_bits(as_float(magnitude) * 0x1p112f);
  if (magnitude >= 0x0f800000u) bits = magnitude | 0x7f800000u;
  return as_float(bits | (x & 0x8000u) << 16);
}
// Nearest, ties to even; NaN becomes 0x7fff, as cvt does it.
DI u16 f32_to_f16(float x) {
  u32 sign = as_bits(x) >> 16 & 0x8000, magnitude = as_bits(x) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return static_cast<u16>(sign | 0x7c00);
  // Below 2^-14 steps are 2^-24, which is what an addition to 0.5 rounds to.
  if (magnitude < 0x38800000u) return static_cast<u16>(sign | (as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u));
  magnitude += 0xfffu + (magnitude >> 13 & 1);
  return static_cast<u16>(sign | (magnitude - 0x38000000u) >> 13);
}
DI u16 f32_to_bf16(float x) {
  u32 bits = as_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<u16>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
DI u32 pack_bf16(float low, float high) { return f32_to_bf16(low) | static_cast<u32>(f32_to_bf16(high)) << 16; }
DI u32 pack_f16(float low, float high) { return f32_to_f16(low) | static_cast<u32>(f32_to_f16(high)) << 16; }

// a * b + c, rounded once to a float of `mantissa` bits behind the point whose smallest normal
// exponent is `least`. Operands are exact 16-bit floats.
DI float emu_fused(float a, float b, float c, int mantissa, int least) {
  double product = static_cast<double>(a) * b, sum = product + c;
  if (!std::isfinite(sum) || sum == 0) return static_cast<float>(sum);
  // What the addition in f64 lost (Knuth); it then goes into the last bit, so that the second
  // rounding sees which side of a tie the sum is on.
  double other = sum - product, lost = (product - (sum - other)) + (c - other);
  u64 bits = emu_bits<u64>(sum);
  if (lost != 0 && !(bits & 1)) bits += (lost > 0) == (sum > 0) ? 1 : -1;
  sum = emu_bits<double>(bits);
  int exponent = static_cast<int>(bits >> 52 & 0x7ff) - 1023;
  if (exponent < least) exponent = least;
  // Adding 1.5 * 2^52 steps rounds to whole steps.
  double magic = emu_bits<double>(static_cast<u64>(exponent - mantissa + 52 + 1023) << 52) * 1.5;
  return static_cast<float>((sum + magic) - magic);
}
DI u32 fma_bf16x2(u32 a, u32 b, u32 c) {
  auto half = [&](int s) {
    auto value = [&](u32 x) { return as_float((x >> s & 0xffffu) << 16); };
    return emu_fused(value(a), value(b), value(c), 7, -126);
  };
  return pack_bf16(half(0), half(16));
}
DI u32 fma_f16x2(u32 a, u32 b, u32 c) {
  auto half = [&](int s) {
    auto value = [&](u32 x) { return f16_to_f32(static_cast<u16>(x >> s)); };
    return emu_fused(value(a), value(b), value(c), 10, -14);
  };
  return pack_f16(half(0), half(16));
}

// ---- arithmetic

// ex2.approx.ftz: subnormals are 0 on both sides.
DI float exp2_fast(float x) {
  float r = exp2f(fabsf(x) < 0x1p-126f ? 0.0f : x);
  return r < 0x1p-126f ? 0.0f : r;
}
DI float rsqrtf(float x) { return 1.0f / sqrtf(x); }
DI float __expf(float x) { return expf(x); }
DI float __exp10f(float x) { return powf(10.0f, x); }
DI float __logf(float x) { return logf(x); }
DI float __log2f(float x) { return log2f(x); }
DI float __powf(float x, float y) { return powf(x, y); }
DI float __sinf(float x) { return sinf(x); }
DI float __cosf(float x) { return cosf(x); }
DI void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }
DI float __fdividef(float x, float y) { return x / y; }
DI float __frcp_rn(float x) { return 1.0f / x; }
DI float __fsqrt_rn(float x) { return sqrtf(x); }
DI float __fadd_rn(float x, float y) { return x + y; }
DI float __fsub_rn(float x, float y) { return x - y; }
DI float __fmul_rn(float x, float y) { return x * y; }
DI float __fdiv_rn(float x, float y) { return x / y; }
DI float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
DI float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
// Nearest, ties to even, saturating; NaN becomes 0.
DI int __float2int_rn(float x) {
  if (x != x) return 0;
  if (x >= 0x1p31f) return 0x7fffffff;
  return x < -0x1p31f ? -0x7fffffff - 1 : static_cast<int>(rintf(x));
}
DI float __int2float_rn(int x) { return static_cast<float>(x); }
DI float __uint2float_rn(u32 x) { return static_cast<float>(x); }

#define EMU_ORDER(T)                             \
  DI T min(T a, T b) { return b < a ? b : a; }   \
  DI T max(T a, T b) { return a < b ? b : a; }
EMU_ORDER(int)
EMU_ORDER(u32)
EMU_ORDER(i64)
EMU_ORDER(u64)
#undef EMU_ORDER
DI u32 min(int a, u32 b) { return min(static_cast<u32>(a), b); }
DI u32 min(u32 a, int b) { return min(a, static_cast<u32>(b)); }
DI u32 max(int a, u32 b) { return max(static_cast<u32>(a), b); }
DI u32 max(u32 a, int b) { return max(a, static_cast<u32>(b)); }
// The one that is a number, if only one is.
DI float min(float a, float b) { return fminf(a, b); }
DI float max(float a, float b) { return fmaxf(a, b); }
DI double min(double a, double b) { return fmin(a, b); }
DI double max(double a, double b) { return fmax(a, b); }

// ---- memory

template <class T> DI T __ldg(const T* p) { return *p; }
template <class T> DI T __ldcs(const T* p) { return *p; }
template <class T> DI T __ldcg(const T* p) { return *p; }
// U4, which ops/device.cuh defines.
template <class T> DI T load_once(const T* p) { return *p; }
template <class T> DI T load_again(const T* p) { return *p; }
DI void __threadfence() {}
DI void __threadfence_block() {}
DI void __trap() { emu_fail("__trap"); }

// One block runs at a time, and a fiber is not interrupted: plain operations are atomic.
template <class T, class F> DI T emu_replace(T* p, F&& change) {
  T old = *p;
  *p = static_cast<T>(change(old));
  return old;
}
template <class T> using emu_same = std::common_type_t<T>;
template <class T> DI T atomicAdd(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return old + v; }); }
template <class T> DI T atomicSub(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return old - v; }); }
template <class T> DI T atomicMax(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return old < v ? v : old; }); }
template <class T> DI T atomicMin(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return v < old ? v : old; }); }
template <class T> DI T atomicOr(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return old | v; }); }
template <class T> DI T atomicAnd(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return old & v; }); }
template <class T> DI T atomicXor(T* p, emu_same<T> v) { return emu_replace(p, [&](T old) { return old ^ v; }); }
template <class T> DI T atomicExch(T* p, emu_same<T> v) { return emu_replace(p, [&](T) { return v; }); }
template <class T> DI T atomicCAS(T* p, emu_same<T> compare, emu_same<T> v) {
  return emu_replace(p, [&](T old) { return old == compare ? v : old; });
}
// Counts up to `last`, then from 0 again.
DI u32 atomicInc(u32* p, u32 last) { return emu_replace(p, [&](u32 old) { return old >= last ? 0 : old + 1; }); }

DI void copy_async16(void* to, const void* from) { emu_copy(to, from); }
DI void copy_async16_or_zero(void* to, const void* from, bool there) { emu_copy(to, there ? from : nullptr); }
DI void copy_commit() { emu_copy_commit(); }
template <int N> DI void copy_wait() { emu_copy_wait(N); }

// ---- a block, a warp

DI void __syncthreads() { emu_barrier(); }
DI void __syncwarp(u32 mask = 0xffffffffu) { emu_meet(emu::SYNCWARP, mask); }

// The value that lane `from` gives.
template <class T> DI T emu_shuffle(u32 mask, T value, int from) {
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  emu::Slot* slot = emu_slot();
  const emu::Slot* source = slot - emu_state->current->lane + from;
  memcpy(&slot->word, &value, sizeof value);
  emu_meet(emu::SHUFFLE, mask);
  memcpy(&value, &source->word, sizeof value);
  return value;
}
DI int emu_lane() { return static_cast<int>(emu_state->current->lane); }
// `width` splits the warp into parts that shuffle among themselves.
template <class T> DI T __shfl_sync(u32 mask, T v, int from, int width = 32) {
  return emu_shuffle(mask, v, (emu_lane() & -width) | (from & (width - 1)));
}
template <class T> DI T __shfl_xor_sync(u32 mask, T v, int by, int width = 32) {
  int lane = emu_lane(), from = lane ^ by;
  return emu_shuffle(mask, v, from < (lane & -width) + width ? from & 31 : lane);
}
template <class T> DI T __shfl_up_sync(u32 mask, T v, u32 by, int width = 32) {
  int lane = emu_lane(), from = lane - static_cast<int>(by);
  return emu_shuffle(mask, v, from >= (lane & -width) ? from : lane);
}
template <class T> DI T __shfl_down_sync(u32 mask, T v, u32 by, int width = 32) {
  int lane = emu_lane(), from = lane + static_cast<int>(by);
  return emu_shuffle(mask, v, from < (lane & -width) + width ? from : lane);
}
DI u32 __ballot_sync(u32 mask, int here) {
  emu::Slot* slot = emu_slot();
  const emu::Slot* all = slot - emu_state->current->lane;
  slot->word = here != 0;
  emu_meet(emu::VOTE, mask);
  u32 r = 0;
  for (int i = 0; i < 32; i++) r |= static_cast<u32>(all[i].word) << i;
  return r;
}
DI int __any_sync(u32 mask, int here) { return __ballot_sync(mask, here) != 0; }
DI int __all_sync(u32 mask, int here) { return __ballot_sync(mask, here) == 0xffffffffu; }
DI u32 __match_any_sync(u32 mask, u32 value) {
  emu::Slot* slot = emu_slot();
  const emu::Slot* all = slot - emu_state->current->lane;
  slot->word = value;
  emu_meet(emu::VOTE, mask);
  u32 r = 0;
  for (int i = 0; i < 32; i++) r |= static_cast<u32>(all[i].word == value) << i;
  return r;
}

// ---- tensor cores

struct bf16;
struct f16;

template <bool TRANSPOSED> DI void emu_load_matrix4(u32 (&r)[4], const void* row) {
  emu::Slot* slot = emu_slot();
  const emu::Slot* all = slot - emu_state->current->lane;
  u32 lane = emu_state->current->lane, g = lane >> 2, t = lane & 3;
  slot->matrix.address = row;
  emu_meet(emu::LOAD_MATRIX, 0xffffffffu);
  // Lane 4 g + t gets elements 2t and 2t + 1 of row g, or of column g.
  for (u32 m = 0; m < 4; m++) {
    auto element = [&](u32 i, u32 j) { return all[8 * m + i].matrix.row[j >> 1] >> 16 * (j & 1) & 0xffffu; };
    r[m] = TRANSPOSED ? element(2 * t, g) | element(2 * t + 1, g) << 16 : all[8 * m + g].matrix.row[t];
  }
}
DI void load_matrix4(u32 (&r)[4], const void* row) { emu_load_matrix4<false>(r, row); }
DI void load_matrix4_transposed(u32 (&r)[4], const void* row) { emu_load_matrix4<true>(r, row); }

template <class T> DI void mma(T, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>, "16-bit floats");
  emu::Slot* slot = emu_slot();
  memcpy(slot->mma.a, a, sizeof a);
  slot->mma.b[0] = b0;
  slot->mma.b[1] = b1;
  memcpy(slot->mma.d, d, sizeof d);
  emu_meet(std::is_same_v<T, bf16> ? emu::MMA_BF16 : emu::MMA_F16, 0xffffffffu);
  memcpy(d, slot->mma.d, sizeof d);
}
