// Products of routed rows with tensor cores: see expert_matmul_bf16.cu, whose kernels and those of
// expert_matmul_f16.cu are instances of `expert_few` and `expert_many`.
#pragma once
#include "expert.cuh"

#define EXPERT_WARPS 4

// Where the rows of x of a tile begin, from place `from` of the tile on, as sum_rows wants them.
template <int COLUMNS> DI void find_rows(const ExpertArgs& a, const Tile& tile, u32 (&at_x)[COLUMNS]) {
#pragma unroll
  for (int n = 0; n < COLUMNS; n++) {
    u32 place = 8 * n + threadIdx.x % 32 / 4;
    at_x[n] = place < tile.places ? row_at(a, tile.first + place) * a.x.width : NO_ROW;
  }
}

// A block: 16 outputs of a tile of up to 8 places; its warps share k chunk by chunk. blockIdx.x
// counts outputs, y tiles.
template <class V, bool TABLE> DI void expert_few(const ExpertArgs& a) {
  constexpr int SUMS = EXPERT_WARPS * 4 * 33;
  SHARED_ARRAY(u32, room, TABLE ? PAIRS : SUMS);
  Tile tile;
  if (!tile_of(a, tile)) return;
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Weight w = weight_of(a, at<const Expert>(a.experts)[tile.expert]);
  if (TABLE) {
    fill_pairs<typename V::Type>(w, room);
    __syncthreads();
  }
  float sum[1][1][4] = {};
  {
    u32 at_x[1];
    find_rows(a, tile, at_x);
    V rows(w, 16 * blockIdx.x, a.rows, room);
    sum_rows<V, 1, 1, 4>(rows, a.cols, a.x.address, at_x, warp, EXPERT_WARPS, sum);
  }
  if (TABLE) __syncthreads();
  // The warps' sums meet in shared memory and are added in the order of the warps: warp e adds
  // accumulators e.
  float* sums = reinterpret_cast<float*>(room);
#pragma unroll
  for (int e = 0; e < 4; e++) sums[(warp * 4 + e) * 33 + lane] = sum[0][0][e];
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int other = 0; other < EXPERT_WARPS; other++) total += sums[(other * 4 + warp) * 33 + lane];
  u32 output = 16 * blockIdx.x + lane / 4 + 8 * (warp / 2), place = 2 * (lane % 4) + warp % 2;
  if (output < a.rows && place < tile.places)
    store(a.out, tile.first + place, a.first + output, fmaf(total, w.factor, bias_of(a, tile, output)));
}

// A block: 128 outputs, 32 a warp, of a tile of up to 64 places. TILES times 16 outputs are
// multiplied at once: 2 where registers allow it, so that x is read half as often.
template <class V, bool TABLE, int TILES> DI void expert_many(const ExpertArgs& a) {
  SHARED_ARRAY(u32, pairs, TABLE ? PAIRS : 1);
  Tile tile;
  if (!tile_of(a, tile)) return;
  const u32 lane = threadIdx.x % 32, of_warp = (EXPERT_WARPS * blockIdx.x + threadIdx.x / 32) * 32;
  const Weight w = weight_of(a, at<const Expert>(a.experts)[tile.expert]);
  if (TABLE) {
    fill_pairs<typename V::Type>(w, pairs);
    __syncthreads();
  }
  u32 at_x[8];
  find_rows(a, tile, at_x);
#pragma unroll 1
  for (u32 first = of_warp; first < min(of_warp + 32, a.rows); first += 16 * TILES) {
    float sum[8][TILES][4] = {};
    V rows(w, first, a.rows, pairs);
    sum_rows<V, TILES, 8, 1>(rows, a.cols, a.x.address, at_x, 0, 1, sum);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        u32 output = first + 16 * i + 8 * half + lane / 4;
        if (output >= a.rows) continue;
        float bias = bias_of(a, tile, output);
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
          for (int e = 0; e < 2; e++) {
            u32 place = 8 * n + 2 * (lane % 4) + e;
            if (place < tile.places)
              store(a.out, tile.first + place, a.first + output, fmaf(sum[n][i][2 * half + e], w.factor, bias));
          }
        }
      }
    }
  }
}
