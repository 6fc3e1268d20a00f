// Products of 16-bit numbers, any number of rows: tensor cores fed through shared memory.
//
// tiles_T_128  128 x 128 of the result a block of 8 warps
// tiles_T_64   64 x 64 a block of 4 warps: for results too small to fill the device otherwise
//
// Used where the vendor's library gives no product. Tiles of 32 of k travel to shared memory in the
// background, two ahead of the one that is multiplied. A tile's row is 64 bytes, four units of 16;
// unit c of row r lies at c ^ (r / 2 % 4), so that the 8 rows that ldmatrix reads at once are in
// different banks. Rows begin 16-byte aligned; k behind the end and rows that are not there are
// zeros. Bound by arithmetic from a few hundred rows on.
#include "dense.cuh"

#define STAGES 3

DI u32 unit(u32 row, u32 c) { return row * 4 + (c ^ (row / 2 & 3)); }

// One 32 of k of `rows` rows from row `first` on to shared memory: zeros from row `end` on.
template <int ROWS, int THREADS> DI void copy_tile(U4* to, const Tensor& from, u32 column, u32 first, u32 end, u32 k, u32 cols) {
#pragma unroll
  for (int i = 0; i < ROWS * 4 / THREADS; i++) {
    u32 row = (threadIdx.x + THREADS * i) / 4, c = threadIdx.x % 4;
    bool there = first + row < end && k + 8 * c < cols;
    u64 element = there ? (u64)(first + row) * from.width + column + k + 8 * c : 0;
    copy_async16_or_zero(to + unit(row, c), at<const u8>(from.address + 2 * element), there);
  }
}

// A pair of neighbouring columns.
DI void store_pair(const Tensor& out, u32 row, u32 column, float low, float high) {
  u64 i = (u64)row * out.width + column;
  if (out.kind == KIND_F32) *at<F2>(out.address + 4 * i) = F2{low, high};
  else *at<u32>(out.address + 2 * i) = out.kind == KIND_BF16 ? pack_bf16(low, high) : pack_f16(low, high);
}

// M x N of the result a block, WM x WN a warp.
template <class T, int M, int N, int WM, int WN> DI void tiles(const DenseArgs& a) {
  constexpr int THREADS = 32 * (M / WM) * (N / WN), ROOM = (M + N) * 4;
  SHARED_ARRAY(U4, room, STAGES * ROOM);
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.z, cols = a.w.width;
  const u32 first_row = M * blockIdx.y, first_output = N * blockIdx.x;
  const u32 warp_row = warp / (N / WN) * WM, warp_output = warp % (N / WN) * WN;
  const u32 steps = (cols + 31) / 32;
  auto fetch = [&](u32 step) {
    U4* to = room + step % STAGES * ROOM;
    copy_tile<M, THREADS>(to, a.x, head * a.x_stride, first_row, a.rows, 32 * step, cols);
    copy_tile<N, THREADS>(to + M * 4, a.w, 0, head * a.outputs + first_output, (head + 1) * a.outputs, 32 * step, cols);
  };
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) fetch(s);
    copy_commit();
  }
  float sum[WM / 16][WN / 8][4] = {};
  for (u32 step = 0; step < steps; step++) {
    copy_wait<STAGES - 2>();
    __syncthreads();
    // Into the room that all warps have left with the barrier.
    if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
    copy_commit();
    const U4* xs = room + step % STAGES * ROOM;
    const U4* ws = xs + M * 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      u32 x[WM / 16][4], w[WN / 16][4];
#pragma unroll
      for (int i = 0; i < WM / 16; i++) load_matrix4(x[i], xs + unit(warp_row + 16 * i + lane % 16, 2 * half + lane / 16));
#pragma unroll
      for (int i = 0; i < WN / 16; i++)
        load_matrix4(w[i], ws + unit(warp_output + 16 * i + lane % 8 + lane / 16 * 8, 2 * half + (lane / 8 & 1)));
#pragma unroll
      for (int i = 0; i < WM / 16; i++) {
#pragma unroll
        for (int j = 0; j < WN / 8; j++) mma(T(), sum[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
  const u32 from = a.first + head * a.out_stride;
  const bool pairs = (a.out.width | from) % 2 == 0;
#pragma unroll
  for (int i = 0; i < WM / 16; i++) {
#pragma unroll
    for (int j = 0; j < WN / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        u32 row = first_row + warp_row + 16 * i + lane / 4 + 4 * e;
        u32 output = first_output + warp_output + 8 * j + 2 * (lane % 4);
        if (row >= a.rows || output >= a.outputs) continue;
        float low = finished(a.finish, sum[i][j][e], from + output);
        bool both = output + 1 < a.outputs;
        float high = both ? finished(a.finish, sum[i][j][e + 1], from + output + 1) : 0.0f;
        if (both && pairs) {
          store_pair(a.out, row, from + output, low, high);
        } else {
          store(a.out, row, from + output, low);
          if (both) store(a.out, row, from + output + 1, high);
        }
      }
    }
  }
}

KERNEL(tiles_bf16_128, DenseArgs, 256, 2) { tiles<bf16, 128, 128, 64, 32>(a); }
KERNEL(tiles_f16_128, DenseArgs, 256, 2) { tiles<f16, 128, 128, 64, 32>(a); }
KERNEL(tiles_bf16_64, DenseArgs, 128, 4) { tiles<bf16, 64, 64, 32, 32>(a); }
KERNEL(tiles_f16_64, DenseArgs, 128, 4) { tiles<f16, 64, 64, 32, 32>(a); }
