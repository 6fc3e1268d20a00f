// Products of routed rows with their experts' matrices on CUDA cores, in f32: out[p] = w * x[p] +
// bias for places p of a tile, all of one expert.
//
// For f32 precision, and for what expert_matmul.cu does not take: f32 weights, odd shapes. Every
// layout, element by element: correct first. A warp has 4 outputs of 8 rows and splits k over its
// lanes. Grid: outputs by 16, tiles; blocks beyond the number of tiles leave at once.
#include "expert.cuh"

#define ROWS 8
#define OUTS 4

enum Layout : u32 { PLAIN_F32 = 0, PLAIN_BF16 = 1, PLAIN_F16 = 2, BYTES_F8 = 3, CODES_4 = 4, CODES_8 = 5 };

// A weight of codes: see the drawing in src/matrix.rs.
DI float weight_of_codes(u32 layout, const Weight& w, u32 row, u32 k) {
  u32 r = row % 16, g = r % 8, high = r / 8;
  u32 lane = 4 * g + k % 16 / 4, pair = k % 4 / 2;
  u32 chunk = layout == CODES_4 ? 64 : 32, chunks = (w.cols + chunk - 1) / chunk;
  const u32* lanes = at<const u32>(w.data + ((u64)(row / 16) * chunks + k / chunk) * 512) + 4 * lane;
  float value;
  if (layout == CODES_4) {
    u32 code = lanes[k % 64 / 16] >> 4 * (2 * pair + high + 4 * (k & 1)) & 15;
    value = w.table ? at<const float>(w.table)[code] : (float)code;
  } else {
    value = (float)(lanes[2 * (k % 32 / 16) + pair] >> 8 * (2 * high + (k & 1)) & 255);
  }
  u32 groups = (chunks * chunk + (1u << w.shift) - 1) >> w.shift;
  u64 entry = ((u64)(row / 16) * groups + (k >> w.shift)) * 8 + g;
  if (w.offset == OFFSET_NONE) return w.factor * to_f32(at<const f16>(w.scales)[2 * entry + high]) * (value - w.bias);
  const f16* scales = at<const f16>(w.scales) + 4 * entry;
  float scale = to_f32(scales[high]), offset = to_f32(scales[2 + high]);
  if (w.offset == OFFSET_ZERO) return w.factor * scale * (value - offset);
  return w.factor * (scale * (value - w.bias) - offset);
}

DI float weight(u32 layout, const Weight& w, u32 row, u32 k) {
  u64 i = (u64)row * w.cols + k;
  switch (layout) {
    case PLAIN_F32: return at<const float>(w.data)[i];
    case PLAIN_BF16: return to_f32(at<const bf16>(w.data)[i]);
    case PLAIN_F16: return to_f32(at<const f16>(w.data)[i]);
    case BYTES_F8: return to_f32(at<const f8>(w.data)[i]) * at<const float>(w.scales)[(u64)(k >> w.shift) * w.rows + row];
    default: return weight_of_codes(layout, w, row, k);
  }
}

KERNEL(expert_wide, ExpertArgs, 128, 1) {
  Tile tile;
  if (!tile_of(a, tile)) return;
  u32 lane = threadIdx.x % 32, first = (blockIdx.x * 4 + threadIdx.x / 32) * OUTS;
  if (first >= a.rows) return;
  Expert expert = at<const Expert>(a.experts)[tile.expert];
  Weight w = weight_of(a, expert);
  const u32* order = at<const u32>(expert.order);
  for (u32 from = 0; from < tile.places; from += ROWS) {
    // Rows and outputs that are not there repeat the last that is.
    u32 row[ROWS], output[OUTS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) row[r] = row_at(a, tile.first + min(from + r, tile.places - 1));
#pragma unroll
    for (int i = 0; i < OUTS; i++) output[i] = min(first + i, a.rows - 1);
    float sums[OUTS][ROWS] = {};
    for (u32 k = lane; k < a.cols; k += 32) {
      u32 column = order ? order[k] : k;
      float v[OUTS];
#pragma unroll
      for (int i = 0; i < OUTS; i++) v[i] = weight(a.layout, w, output[i], k);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float x = load(a.x, row[r], column);
#pragma unroll
        for (int i = 0; i < OUTS; i++) sums[i][r] = fmaf(v[i], x, sums[i][r]);
      }
    }
#pragma unroll
    for (int i = 0; i < OUTS; i++) {
      if (first + i >= a.rows) continue;
      float bias = bias_of(a, tile, first + i);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float sum = warp_sum(sums[i][r]);
        if (lane == 0 && from + r < tile.places) store(a.out, tile.first + from + r, a.first + first + i, sum + bias);
      }
    }
  }
}
