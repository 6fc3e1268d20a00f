// What every kernel uses: types, conversions, reductions, tensors, tensor-core and copy wrappers.
//
// No vendor header is included, so NVRTC needs nothing but this text. The same text compiles as
// C++ behind emulator/cuda_cpu.h (EMULATOR is defined then), where each wrapper around an
// instruction has a body that does what PTX documents. A kernel takes one struct by value whose
// twin is `#[repr(C)]` in src/ops; pointers are u64 there and `at<T>(address)` here.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define FULL 0xffffffffu

#ifndef EMULATOR
#define DI __device__ __forceinline__
// Raw dynamic shared memory, 128-byte aligned.
#define SHARED_BYTES(name) extern __shared__ __align__(128) u8 name[]
// A shared array of a size that is known when compiling, 16-byte aligned.
#define SHARED_ARRAY(T, name, count) __shared__ __align__(16) T name[count]
// A kernel of `threads` threads a block; `min_blocks` of them should fit a multiprocessor.
#define KERNEL(name, Args, threads, min_blocks) \
  extern "C" __global__ void __launch_bounds__(threads, min_blocks) name(const __grid_constant__ Args a)
template <class T> DI T* at(u64 address) { return reinterpret_cast<T*>(address); }
#endif

// 16-bit floats are kept as their bits.
struct bf16 { u16 bits; };
struct f16 { u16 bits; };
struct f8 { u8 bits; };  // e4m3fn

struct alignas(8) U2 { u32 x, y; };
struct alignas(16) U4 { u32 x, y, z, w; };
struct alignas(8) F2 { float x, y; };
struct alignas(16) F4 { float x, y, z, w; };

#ifndef EMULATOR
DI float as_float(u32 x) { return __uint_as_float(x); }
DI u32 as_bits(float x) { return __float_as_uint(x); }
DI float f16_to_f32(u16 x) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x)); return r; }
DI u16 f32_to_f16(float x) { u16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x)); return r; }
DI u32 pack_bf16(float low, float high) { u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r; }
DI u32 pack_f16(float low, float high) { u32 r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r; }
DI u16 f32_to_bf16(float x) { return (u16)pack_bf16(x, 0.0f); }
DI float exp2_fast(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DI u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// a * b + c in each half.
DI u32 fma_bf16x2(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DI u32 fma_f16x2(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
// A value that is computed once and kept: the compiler does not see what it is made of.
DI u64 in_register(u64 x) { asm("" : "+l"(x)); return x; }
// (a & b) | c in one instruction, which two constants would make two.
DI u32 and_or(u32 a, u32 b, u32 c) { u32 r; asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
// Bytes of a and b (b's are 4..8) chosen by the nibbles of `order`.
DI u32 permute(u32 a, u32 b, u32 order) { return __byte_perm(a, b, order); }

// 16 bytes to shared memory in the background; lands at the wait for its group.
DI void copy_async16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// As above; zeros when `there` is false.
DI void copy_async16_or_zero(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}
DI void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread are under way.
template <int N> DI void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// 16, 8 or 4 bytes that are read once: not kept in L1.
DI U4 load_once(const U4* p) {
  U4 r;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}

DI U2 load_once(const U2* p) {
  U2 r;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
  return r;
}
DI u32 load_once(const u32* p) {
  u32 r;
  asm volatile("ld.global.L1::no_allocate.u32 %0, [%1];" : "=r"(r) : "l"(p));
  return r;
}

// 16, 8 or 4 bytes of global memory that others read too: kept in L1.
DI U4 load_again(const U4* p) {
  U4 r;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}
DI u32 load_again(const u32* p) { u32 r; asm volatile("ld.global.u32 %0, [%1];" : "=r"(r) : "l"(p)); return r; }
DI U2 load_again(const U2* p) {
  U2 r;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
  return r;
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
DI void load_matrix4(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DI void load_matrix4_transposed(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// d += a * b, m16n8k16. Lane l = 4 g + t holds
//   a[0] (row g, k 2t 2t+1)  a[1] (row g+8)  a[2] (row g, k 2t+8 2t+9)  a[3] (row g+8, those k)
//   b[0] (k 2t 2t+1, column g)  b[1] (k 2t+8 2t+9, column g)
//   d[0] d[1] (row g, columns 2t 2t+1)  d[2] d[3] (row g+8, those columns)
DI void mma(bf16, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DI void mma(f16, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

DI float to_f32(float x) { return x; }
DI float to_f32(bf16 x) { return as_float((u32)x.bits << 16); }
DI float to_f32(f16 x) { return f16_to_f32(x.bits); }
template <class T> struct From {};
template <> struct From<float> { static DI float f32(float x) { return x; } };
template <> struct From<bf16> { static DI bf16 f32(float x) { return bf16{f32_to_bf16(x)}; } };
template <> struct From<f16> { static DI f16 f32(float x) { return f16{f32_to_f16(x)}; } };
template <class T> DI u32 pack(float low, float high);
template <> DI u32 pack<bf16>(float low, float high) { return pack_bf16(low, high); }
template <> DI u32 pack<f16>(float low, float high) { return pack_f16(low, high); }
template <class T> DI F2 unpack(u32 both);
template <> DI F2 unpack<bf16>(u32 both) { return F2{as_float(both << 16), as_float(both & 0xffff0000u)}; }
template <> DI F2 unpack<f16>(u32 both) { return F2{f16_to_f32((u16)both), f16_to_f32((u16)(both >> 16))}; }

// Every value of e4m3fn; 0x7f and 0xff are NaN.
DI float to_f32(f8 x) {
  if ((x.bits & 0x7f) == 0x7f) return as_float(0x7fc00000u);
  // As f16 with the exponent of e4m3 it is 2^8 too small.
  return f16_to_f32((u16)((x.bits & 0x80) << 8 | (x.bits & 0x7f) << 7)) * 256.0f;
}

// Nearest e4m3fn, ties to even, saturating at 448; NaN stays NaN.
DI u8 f32_to_f8(float x) {
  u32 sign = as_bits(x) >> 24 & 0x80, magnitude = as_bits(x) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (u8)(sign | 0x7f);
  if (magnitude >= 0x43e00000u) return (u8)(sign | 0x7e);  // 448
  if (magnitude < 0x3c800000u) {                            // below 2^-6 steps are 2^-9
    float steps = as_float(magnitude) * 512.0f;
    u32 whole = (u32)steps;
    float rest = steps - (float)whole;
    whole += rest > 0.5f || (rest == 0.5f && (whole & 1));
    return (u8)(sign | whole);
  }
  u32 rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1);
  return (u8)(sign | ((rounded >> 20) - (120u << 3)));
}

// Sum over the warp, in every lane. The order of additions is fixed.
DI float warp_sum(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(FULL, x, o);
  return x;
}
DI float warp_max(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) { float y = __shfl_xor_sync(FULL, x, o); x = x > y ? x : y; }
  return x;
}
// Sum over a block of up to 1024 threads, in every thread; `room` is shared, 32 floats. Barriers
// on both sides: room may be used again at once.
DI float block_sum(float x, float* room) {
  x = warp_sum(x);
  int warps = (blockDim.x + 31) / 32;
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; i++) sum += room[i];
  __syncthreads();
  return sum;
}

// Activations, row-major. `kind` is the element type: uniform over a launch, so branches on it
// cost nothing beside memory.
enum Kind : u32 { KIND_F32 = 0, KIND_BF16 = 1, KIND_F16 = 2 };
struct Tensor { u64 address; u32 width; u32 kind; };

// Element `column` of row `row`.
DI float load(const Tensor& x, u32 row, u32 column) {
  u64 i = (u64)row * x.width + column;
  if (x.kind == KIND_F32) return at<const float>(x.address)[i];
  if (x.kind == KIND_BF16) return to_f32(at<const bf16>(x.address)[i]);
  return to_f32(at<const f16>(x.address)[i]);
}
DI void store(const Tensor& x, u32 row, u32 column, float value) {
  u64 i = (u64)row * x.width + column;
  if (x.kind == KIND_F32) at<float>(x.address)[i] = value;
  else if (x.kind == KIND_BF16) at<bf16>(x.address)[i] = From<bf16>::f32(value);
  else at<f16>(x.address)[i] = From<f16>::f32(value);
}
// Four elements from `column`, a multiple of 4, of a row whose width is a multiple of 4.
DI F4 load4(const Tensor& x, u32 row, u32 column) {
  u64 i = (u64)row * x.width + column;
  if (x.kind == KIND_F32) return *at<const F4>(x.address + 4 * i);
  U2 v = *at<const U2>(x.address + 2 * i);
  F2 a = x.kind == KIND_BF16 ? unpack<bf16>(v.x) : unpack<f16>(v.x);
  F2 b = x.kind == KIND_BF16 ? unpack<bf16>(v.y) : unpack<f16>(v.y);
  return F4{a.x, a.y, b.x, b.y};
}
DI void store4(const Tensor& x, u32 row, u32 column, F4 v) {
  u64 i = (u64)row * x.width + column;
  if (x.kind == KIND_F32) *at<F4>(x.address + 4 * i) = v;
  else if (x.kind == KIND_BF16) *at<U2>(x.address + 2 * i) = U2{pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
  else *at<U2>(x.address + 2 * i) = U2{pack_f16(v.x, v.y), pack_f16(v.z, v.w)};
}

struct F8 { float v[8]; };

// Eight elements from `column`, a multiple of 8, of a row whose width is a multiple of 8.
DI F8 load8(const Tensor& x, u32 row, u32 column) {
  u64 i = (u64)row * x.width + column;
  if (x.kind == KIND_F32) {
    const F4* p = at<const F4>(x.address + 4 * i);
    F4 a = p[0], b = p[1];
    return F8{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
  }
  U4 v = *at<const U4>(x.address + 2 * i);
  bool b16 = x.kind == KIND_BF16;
  F2 a = b16 ? unpack<bf16>(v.x) : unpack<f16>(v.x), b = b16 ? unpack<bf16>(v.y) : unpack<f16>(v.y);
  F2 c = b16 ? unpack<bf16>(v.z) : unpack<f16>(v.z), d = b16 ? unpack<bf16>(v.w) : unpack<f16>(v.w);
  return F8{{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}
DI void store8(const Tensor& x, u32 row, u32 column, const F8& f) {
  u64 i = (u64)row * x.width + column;
  const float* v = f.v;
  if (x.kind == KIND_F32) {
    F4* p = at<F4>(x.address + 4 * i);
    p[0] = F4{v[0], v[1], v[2], v[3]};
    p[1] = F4{v[4], v[5], v[6], v[7]};
  } else if (x.kind == KIND_BF16) {
    *at<U4>(x.address + 2 * i) = U4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
  } else {
    *at<U4>(x.address + 2 * i) = U4{pack_f16(v[0], v[1]), pack_f16(v[2], v[3]), pack_f16(v[4], v[5]), pack_f16(v[6], v[7])};
  }
}
