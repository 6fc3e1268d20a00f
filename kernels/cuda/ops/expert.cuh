// Products of routed rows: what the kernels take, and the experts' matrices.
#pragma once
#include "weights.cuh"

// A part of an expert's matrix, as far as experts differ: the twin of `Entry` in
// src/ops/experts/matrices.rs. Fields are those of Weight.
struct Expert {
  u64 data;
  u64 scales;
  u64 order;     // u32 [cols] or 0: stored column j multiplies input element order[j]
  float factor;
  float bias;
  u32 shift;
  u32 offset;
};

struct ExpertArgs {
  Tensor x;      // [rows, cols], or routed rows
  Tensor out;    // [routed rows, outputs of all parts]
  u64 experts;   // Expert [experts]
  u64 table;     // f32 [16]: what 4-bit codes stand for; 0: themselves
  u64 bias;      // f32 [experts, out.width] or 0
  u64 tiles;     // U4 [tiles]: expert, first place, places
  u64 number;    // u32: tiles
  u64 sources;   // u32 [routed rows]: the row of x at a place; 0: x is in order of places
  u32 rows;      // outputs of this part
  u32 cols;
  u32 first;     // column of out that output 0 writes
  u32 layout;    // as Layout in expert_wide.cu
};

// Some places of one expert.
struct Tile { u32 expert, first, places; };

// The tile of a block; false: there is none.
DI bool tile_of(const ExpertArgs& a, Tile& tile) {
  if (blockIdx.y >= *at<const u32>(a.number)) return false;
  U4 entry = at<const U4>(a.tiles)[blockIdx.y];
  tile = Tile{entry.x, entry.y, entry.z};
  return true;
}

DI u32 row_at(const ExpertArgs& a, u32 place) { return a.sources ? at<const u32>(a.sources)[place] : place; }

DI float bias_of(const ExpertArgs& a, const Tile& tile, u32 output) {
  return a.bias ? at<const float>(a.bias)[(u64)tile.expert * a.out.width + a.first + output] : 0.0f;
}

DI Weight weight_of(const ExpertArgs& a, const Expert& e) {
  return Weight{e.data, e.scales, a.table, a.rows, a.cols, a.first, e.shift, e.bias, e.factor, e.offset, 0};
}
