// Kernels that test the emulator itself, its mistakes included. Not built for a GPU.
//
// One struct serves all: `in` and `out` are addresses, `count` and `mode` mean what each kernel
// says. `mode` 0 is the right way where there is a wrong one.
#include "device.cuh"

struct ProbeArgs {
  u64 in, out;
  u32 count, mode;
};

// out[8][32]: what each lane gets from each kind of shuffle and vote.
KERNEL(lanes, ProbeArgs, 32, 1) {
  u32 lane = threadIdx.x, value = 100 + lane, *out = at<u32>(a.out) + lane;
  out[0] = __shfl_sync(FULL, value, 7);
  out[32] = __shfl_xor_sync(FULL, value, 5);
  out[64] = __shfl_up_sync(FULL, value, 3);
  out[96] = __shfl_down_sync(FULL, value, 3);
  out[128] = __shfl_sync(FULL, value, 7, 4);
  out[160] = __ballot_sync(FULL, lane % 3 == 0);
  out[192] = __any_sync(FULL, lane == 9) << 1 | __all_sync(FULL, lane < 32);
  u64 both = __shfl_xor_sync(FULL, (u64)value << 32 | lane, 1);
  out[224] = (u32)(both >> 32) * 1000 + (u32)both;
}

template <class T> DI void product(const ProbeArgs& a) {
  // in: A [16][16], B [16][8] of 16-bit floats; out: D [16][8], added to.
  const u16* x = at<const u16>(a.in);
  const u16* y = x + 256;
  float* out = at<float>(a.out);
  u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
  auto two = [](u16 low, u16 high) { return low | (u32)high << 16; };
  u32 f[4];
  for (u32 i = 0; i < 4; i++) {
    const u16* from = x + (g + 8 * (i & 1)) * 16 + 2 * t + 8 * (i >> 1);
    f[i] = two(from[0], from[1]);
  }
  u32 b0 = two(y[(2 * t) * 8 + g], y[(2 * t + 1) * 8 + g]);
  u32 b1 = two(y[(2 * t + 8) * 8 + g], y[(2 * t + 9) * 8 + g]);
  float d[4];
  for (u32 i = 0; i < 4; i++) d[i] = out[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
  for (u32 i = 0; i < a.count; i++) mma(T{}, d, f, b0, b1);
  for (u32 i = 0; i < 4; i++) out[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = d[i];
}
KERNEL(product_bf16, ProbeArgs, 32, 1) { product<bf16>(a); }
KERNEL(product_f16, ProbeArgs, 32, 1) { product<f16>(a); }

// Four 8x8 matrices, in to shared memory in the background and out as ldmatrix gives them:
// out [4 registers][32 lanes], transposed for mode 1. Mode 2 forgets the wait.
KERNEL(matrices, ProbeArgs, 32, 1) {
  SHARED_BYTES(room);
  copy_async16(room + 16 * threadIdx.x, at<const u8>(a.in) + 16 * threadIdx.x);
  copy_commit();
  if (a.mode != 2) copy_wait<0>();
  __syncwarp();
  u32 r[4];
  if (a.mode == 1) load_matrix4_transposed(r, room + 16 * threadIdx.x);
  else load_matrix4(r, room + 16 * threadIdx.x);
  for (u32 i = 0; i < 4; i++) at<u32>(a.out)[32 * i + threadIdx.x] = r[i];
}

// count chunks of 32 u32 through two stages: out[i] = in[i] + 1; mode 1 waits for one group too few,
// mode 2 fills a stage that others still read.
KERNEL(stages, ProbeArgs, 64, 1) {
  SHARED_ARRAY(u32, room, 512);
  u32 me = threadIdx.x;
  auto fetch = [&](u32 chunk) {
    bool there = chunk < a.count;
    copy_async16_or_zero(room + chunk % 2 * 256 + me * 4, at<const u32>(a.in) + (there ? chunk : 0) * 256 + me * 4, there);
    copy_commit();
  };
  fetch(0);
  for (u32 chunk = 0; chunk < a.count; chunk++) {
    fetch(chunk + 1);
    if (a.mode == 1) copy_wait<2>();
    else copy_wait<1>();
    __syncthreads();
    // Another thread's four, so that the barriers matter.
    for (u32 i = 0; i < 4; i++) {
      u32 at_ = (me * 4 + i + 128) % 256;
      at<u32>(a.out)[chunk * 256 + at_] = room[chunk % 2 * 256 + at_] + 1;
    }
    if (a.mode != 2) __syncthreads();
  }
}

// out[i] = i + 32 by way of a neighbour in another warp; mode 1 forgets the barrier.
KERNEL(neighbours, ProbeArgs, 128, 1) {
  SHARED_ARRAY(u32, room, 128);
  room[threadIdx.x] = threadIdx.x;
  if (a.mode == 0) __syncthreads();
  at<u32>(a.out)[threadIdx.x] = room[(threadIdx.x + 32) % 128];
}

// Mistakes that end a launch, by mode.
KERNEL(mistakes, ProbeArgs, 64, 1) {
  SHARED_ARRAY(u32, room, 64);
  SHARED_BYTES(dynamic);
  u32 me = threadIdx.x + 64 * blockIdx.x;
  room[threadIdx.x] = me;
  if (a.mode == 1 && me == 69) __syncthreads();
  if (a.mode == 2) { if (me == 69) return; __syncthreads(); }
  if (a.mode == 3) { if (me < 70) __syncwarp(); else __syncthreads(); }
  if (a.mode == 4 && me == 69) return;
  if (a.mode == 4) at<u32>(a.out)[threadIdx.x] = __shfl_xor_sync(FULL, me, 1);
  if (a.mode == 5) at<u32>(a.out)[threadIdx.x] = me < 69 ? __shfl_xor_sync(FULL, me, 1) : __ballot_sync(FULL, 1);
  if (a.mode == 6 && me == 69) room[a.count] = 1;
  if (a.mode == 7 && me == 69) at<U4>(a.out + 8)->x = 1;
  if (a.mode == 8 && me == 69) at<u32>(a.out)[0] = 7 / a.count;
  if (a.mode == 9 && me == 69) at<u32>(a.out)[a.count] = 1;
  if (a.mode == 10 && me == 69) at<u32>(a.out)[0] = at<u32>(a.in)[a.count];
  if (a.mode == 11 && me == 69) dynamic[a.count] = 1;
  if (a.mode == 12 && me == 69) __trap();
  if (a.mode == 13) at<u32>(a.out)[threadIdx.x] = __shfl_xor_sync(0xffffu, me, 1);
  if (a.mode == 14 && me == 69) copy_async16(at<u8>(a.out), at<u8>(a.in));
}

// out[block] = the sum of what the block finds in shared memory, then dirties it.
KERNEL(leftovers, ProbeArgs, 32, 1) {
  SHARED_ARRAY(u32, room, 32);
  SHARED_BYTES(dynamic);
  u32 me = threadIdx.x, found = room[me] & at<u32>((u64)dynamic)[me];
  if (me == 0) at<u32>(a.out)[blockIdx.x] = 0;
  __syncwarp();
  if (found == 0xffffffffu) atomicAdd(at<u32>(a.out) + blockIdx.x, 1);
  room[me] = at<u32>((u64)dynamic)[me] = 0;
}

// out[0] counts blocks; out[1 + n] is the n-th block that ran.
KERNEL(order, ProbeArgs, 1, 1) {
  u32 n = atomicAdd(at<u32>(a.out), 1);
  at<u32>(a.out)[1 + n] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}

// out[i] = in[i] of u32 bits through a conversion, chosen by mode.
KERNEL(convert, ProbeArgs, 256, 1) {
  for (u32 i = blockIdx.x * 256 + threadIdx.x; i < a.count; i += gridDim.x * 256) {
    u32 x = at<const u32>(a.in)[i], *out = at<u32>(a.out) + i;
    if (a.mode == 0) *out = as_bits(f16_to_f32((u16)x));
    if (a.mode == 1) *out = f32_to_f16(as_float(x));
    if (a.mode == 2) *out = f32_to_bf16(as_float(x));
    if (a.mode == 3) *out = as_bits(to_f32(f8{(u8)x}));
    if (a.mode == 4) *out = f32_to_f8(as_float(x));
    if (a.mode == 5) *out = pack_f16(as_float(x), 1.0f);
    if (a.mode == 6) *out = pack_bf16(as_float(x), 1.0f);
    if (a.mode == 7) *out = as_bits(exp2_fast(as_float(x)));
  }
}

// out[i] = in[i][0] * in[i][1] + in[i][2] in both halves; f16 for mode 0, bf16 for mode 1.
KERNEL(fused, ProbeArgs, 256, 1) {
  for (u32 i = blockIdx.x * 256 + threadIdx.x; i < a.count; i += gridDim.x * 256) {
    const u32* x = at<const u32>(a.in) + 3 * i;
    at<u32>(a.out)[i] = a.mode == 0 ? fma_f16x2(x[0], x[1], x[2]) : fma_bf16x2(x[0], x[1], x[2]);
  }
}

// Integer functions of in[0..2], one result each.
KERNEL(integers, ProbeArgs, 1, 1) {
  u32 x = at<u32>(a.in)[0], y = at<u32>(a.in)[1], *out = at<u32>(a.out);
  out[0] = __byte_perm(x, y, 0x7351);
  out[1] = __byte_perm(x, y, 0x8c04);
  out[2] = __umulhi(x, y);
  out[3] = __popc(x) << 16 | __clz(x) << 8 | __ffs(x);
  out[4] = (u32)__dp4a((int)x, (int)y, 5);
  out[5] = __funnelshift_l(x, y, 12);
  out[6] = __brev(x);
  out[7] = (u32)__umul64hi((u64)x << 32, (u64)y << 32);
  out[8] = atomicMax(out + 9, x);
  out[10] = atomicCAS(out + 9, x, y);
  out[11] = atomicOr(out + 9, 0xff);
}

// count shuffles of one lane's sum: what a switch costs.
KERNEL(shuffles, ProbeArgs, 32, 1) {
  u32 x = threadIdx.x;
  for (u32 i = 0; i < a.count; i++) x = __shfl_xor_sync(FULL, x, 1) + 1;
  at<u32>(a.out)[threadIdx.x] = x;
}

KERNEL(add_one, ProbeArgs, 256, 1) {
  u32 i = blockIdx.x * 256 + threadIdx.x;
  if (i < a.count) at<u32>(a.out)[i] = at<u32>(a.in)[i] + 1;
}
