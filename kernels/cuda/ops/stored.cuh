// Weights as numbers again, exactly as src/matrix.rs says: for rows that are read one by one and
// for parts that are expanded. Products read them by other means (weights.cuh).
#pragma once
#include "device.cuh"

enum Stored_layout : u32 { STORED_F32 = 0, STORED_BF16 = 1, STORED_F16 = 2, STORED_F8 = 3, STORED_CODES4 = 4, STORED_CODES8 = 5 };
enum Stored_offset : u32 { STORED_NONE = 0, STORED_ZERO = 1, STORED_MINIMUM = 2 };

// A part of a matrix: the twin of `StoredArg` in src/ops/expand.rs.
struct Stored {
  u64 data;     // numbers or codes
  u64 scales;   // 0 for plain numbers
  u64 table;    // f32 [16] or 0
  u64 order;    // u32 [cols] or 0: stored column j is column order[j]
  u32 first;    // row of the matrix that is the part's first
  u32 rows;     // padding aside
  u32 cols;
  u32 layout;   // Stored_layout
  u32 group;    // elements of k that share a scale
  u32 offset;   // Stored_offset
  float bias;   // taken off every value
  float factor; // multiplies everything
};

template <int BITS> DI constexpr u32 tile_cols() { return 256 / BITS; }
template <int BITS> DI u32 tiles_of(const Stored& w) { return (w.cols + tile_cols<BITS>() - 1) / tile_cols<BITS>(); }

// Scales and offsets of rows g and g + 8 of a row block.
struct Pair { float scale[2], offset[2]; };
template <int BITS> DI Pair pair_of(const Stored& w, u32 block, u32 g, u32 k) {
  u32 groups = tiles_of<BITS>(w) * tile_cols<BITS>() / w.group;
  u64 i = ((u64)block * groups + k / w.group) * 8 + g;
  if (w.offset == STORED_NONE) {
    F2 scales = unpack<f16>(at<const u32>(w.scales)[i]);
    return Pair{{scales.x, scales.y}, {0.0f, 0.0f}};
  }
  U2 both = at<const U2>(w.scales)[i];
  F2 scales = unpack<f16>(both.x), offsets = unpack<f16>(both.y);
  return Pair{{scales.x, scales.y}, {offsets.x, offsets.y}};
}

// The weight that a code stands for. `table` is null without one.
DI float weight_of(const Stored& w, const float* table, u32 code, float scale, float offset) {
  float value = (table ? table[code] : (float)code) - w.bias;
  if (w.offset == STORED_ZERO) value -= offset;
  float weight = scale * value;
  if (w.offset == STORED_MINIMUM) weight -= offset;
  return w.factor * weight;
}

// Four weights of neighbouring columns, of row g + 8 h of a row block: those of step s among a
// lane's 16 bytes.
template <int BITS> DI F4 four_of(const Stored& w, const float* table, const u32 (&raw)[4], int s, int h, const Pair& pair) {
  u32 c[4];
  if (BITS == 4) {
    // Nibbles j and j + 4 are neighbours in k; row g + 8 has the odd ones.
    u32 word = raw[s] >> (4 * h);
    c[0] = word & 15;
    c[1] = word >> 16 & 15;
    c[2] = word >> 8 & 15;
    c[3] = word >> 24 & 15;
  } else {
    u32 low = raw[(2 * s) % 4] >> (16 * h), high = raw[(2 * s + 1) % 4] >> (16 * h);
    c[0] = low & 255;
    c[1] = low >> 8 & 255;
    c[2] = high & 255;
    c[3] = high >> 8 & 255;
  }
  float scale = pair.scale[h], offset = pair.offset[h];
  return F4{weight_of(w, table, c[0], scale, offset), weight_of(w, table, c[1], scale, offset),
            weight_of(w, table, c[2], scale, offset), weight_of(w, table, c[3], scale, offset)};
}

// A row of codes, its fours in turn to the threads of a block: `four(column, weights)`.
template <int BITS, class Four> DI void codes_row(const Stored& w, u32 row, Four four) {
  const float* table = at<const float>(w.table);
  u32 block = row / 16, g = row % 8, h = row / 8 % 2, tiles = tiles_of<BITS>(w);
  for (u32 i = threadIdx.x; i < tiles * 4; i += blockDim.x) {
    u32 tile = i / 4, t = i % 4;
    U4 bytes = at<const U4>(w.data)[((u64)block * tiles + tile) * 32 + 4 * g + t];
    u32 raw[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
    for (int s = 0; s < 16 / BITS; s++) {
      u32 k = tile * tile_cols<BITS>() + 16 * s + 4 * t;
      if (k >= w.cols) break;
      Pair pair = pair_of<BITS>(w, block, g, k);
      four(k, h ? four_of<BITS>(w, table, raw, s, 1, pair) : four_of<BITS>(w, table, raw, s, 0, pair));
    }
  }
}

// Four neighbouring numbers of a row that is no codes; `k` and `cols` are multiples of 4.
DI F4 numbers_of(const Stored& w, u32 row, u32 k) {
  u64 i = (u64)row * w.cols + k;
  if (w.layout == STORED_F8) {
    u32 codes = *at<const u32>(w.data + i);
    float scale = at<const float>(w.scales)[(u64)(k / w.group) * w.rows + row];
    return F4{scale * to_f32(f8{(u8)codes}), scale * to_f32(f8{(u8)(codes >> 8)}),
              scale * to_f32(f8{(u8)(codes >> 16)}), scale * to_f32(f8{(u8)(codes >> 24)})};
  }
  return load4(Tensor{w.data, w.cols, w.layout}, row, k);
}

// A row, in turn to the threads of a block: `four(column, weights)` where four neighbours stay
// neighbours, `one(column, weight)` where not. Columns are those of the input.
template <class Four, class One> DI void stored_row(const Stored& w, u32 row, Four four, One one) {
  const u32* order = at<const u32>(w.order);
  auto place = [&](u32 k, F4 v) {
    if (!order) return four(k, v);
    one(order[k], v.x);
    one(order[k + 1], v.y);
    one(order[k + 2], v.z);
    one(order[k + 3], v.w);
  };
  if (w.layout == STORED_CODES4) return codes_row<4>(w, row, place);
  if (w.layout == STORED_CODES8) return codes_row<8>(w, row, place);
  if (w.cols % 4 == 0) {
    for (u32 k = 4 * threadIdx.x; k < w.cols; k += 4 * blockDim.x) place(k, numbers_of(w, row, k));
    return;
  }
  for (u32 k = threadIdx.x; k < w.cols; k += blockDim.x) {
    one(order ? order[k] : k, load(Tensor{w.data, w.cols, w.layout}, row, k));
  }
}
