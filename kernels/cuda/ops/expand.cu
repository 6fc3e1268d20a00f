// Parts of weight matrices as plain numbers, row-major, for products that need them so.
//
// expand_codes4, expand_codes8   a warp a tile of 16 rows: 16 bytes a lane are read once, and each
//                                step writes eight rows in whole sectors of 32 bytes
// expand_numbers                 8-bit floats and plain numbers: eight elements a thread, or one
//                                where rows are no multiples of eight
//
// Columns stay in the order in which they are stored. All bound by what is written.
#include "stored.cuh"

struct ExpandArgs {
  Stored w;
  u64 out;    // [rows, w.cols]
  u32 kind;   // of out
  u32 first;  // row of the part that is the first of out
  u32 rows;
  u32 pad;
};

template <int BITS> DI void expand_codes(const ExpandArgs& a, float* shared_table) {
  const Stored& w = a.w;
  if (w.table && threadIdx.x < 16) shared_table[threadIdx.x] = at<const float>(w.table)[threadIdx.x];
  __syncthreads();
  const float* table = w.table ? shared_table : nullptr;
  u32 tiles = tiles_of<BITS>(w), eights = (tiles + 7) / 8;
  u32 block = a.first / 16 + blockIdx.x / eights;
  u32 tile = blockIdx.x % eights * 8 + threadIdx.x / 32;
  if (tile >= tiles) return;
  u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  U4 bytes = load_once(at<const U4>(w.data) + ((u64)block * tiles + tile) * 32 + lane);
  u32 raw[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
  Tensor out{a.out, w.cols, a.kind};
#pragma unroll
  for (int s = 0; s < 16 / BITS; s++) {
    u32 k = tile * tile_cols<BITS>() + 16 * s + 4 * t;
    if (k >= w.cols) break;
    Pair pair = pair_of<BITS>(w, block, g, k);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      // Before the first row this wraps around to a large number.
      u32 row = block * 16 + g + 8 * h - a.first;
      if (row < a.rows) store4(out, row, k, four_of<BITS>(w, table, raw, s, h, pair));
    }
  }
}

KERNEL(expand_codes4, ExpandArgs, 256, 1) {
  SHARED_ARRAY(float, table, 16);
  expand_codes<4>(a, table);
}

KERNEL(expand_codes8, ExpandArgs, 256, 1) {
  SHARED_ARRAY(float, table, 16);
  expand_codes<8>(a, table);
}

KERNEL(expand_numbers, ExpandArgs, 256, 1) {
  const Stored& w = a.w;
  Tensor out{a.out, w.cols, a.kind};
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  u32 of_row = w.cols % 8 == 0 ? w.cols / 8 : w.cols;
  u32 row = (u32)(i / of_row), k = (u32)(i % of_row);
  if (row >= a.rows) return;
  if (w.cols % 8) return store(out, row, k, load(Tensor{w.data, w.cols, w.layout}, a.first + row, k));
  k *= 8;
  F4 low = numbers_of(w, a.first + row, k), high = numbers_of(w, a.first + row, k + 4);
  if (out.kind == KIND_F32) {
    store4(out, row, k, low);
    return store4(out, row, k + 4, high);
  }
  u64 to = out.address + 2 * ((u64)row * w.cols + k);
  *at<U4>(to) = out.kind == KIND_BF16
      ? U4{pack_bf16(low.x, low.y), pack_bf16(low.z, low.w), pack_bf16(high.x, high.y), pack_bf16(high.z, high.w)}
      : U4{pack_f16(low.x, low.y), pack_f16(low.z, low.w), pack_f16(high.x, high.y), pack_f16(high.z, high.w)};
}
