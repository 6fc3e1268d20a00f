// Sums up what a row's experts gave: out[r] = the sum over k of weights[r][k] * x[places[r][k]], in
// the order in which they were chosen. Bound by memory. `_wide` takes 8 elements a thread and wins
// wherever the width is a multiple of 8. Grid: rows, pieces of a row. Rows that are not real have
// no places and are left as they are.
#include "device.cuh"

struct CombineArgs {
  Tensor x;      // [rows * top_k, width], sorted by expert
  Tensor out;    // [rows, width]
  u64 count;     // u32: rows that are real
  u64 places;    // u32 [rows, top_k]
  u64 weights;   // f32 [rows, top_k]
  u32 top_k;
  u32 pad;
};

KERNEL(combine_wide, CombineArgs, 128, 1) {
  u32 row = blockIdx.x, column = (blockIdx.y * 128 + threadIdx.x) * 8;
  if (row >= *at<const u32>(a.count) || column >= a.out.width) return;
  const u32* places = at<const u32>(a.places) + (u64)row * a.top_k;
  const float* weights = at<const float>(a.weights) + (u64)row * a.top_k;
  F8 sum = {};
#pragma unroll 2
  for (u32 k = 0; k < a.top_k; k++) {
    F8 x = load8(a.x, places[k], column);
    float weight = weights[k];
#pragma unroll
    for (int i = 0; i < 8; i++) sum.v[i] = fmaf(x.v[i], weight, sum.v[i]);
  }
  store8(a.out, row, column, sum);
}

KERNEL(combine_any, CombineArgs, 128, 1) {
  u32 row = blockIdx.x, column = blockIdx.y * 128 + threadIdx.x;
  if (row >= *at<const u32>(a.count) || column >= a.out.width) return;
  const u32* places = at<const u32>(a.places) + (u64)row * a.top_k;
  const float* weights = at<const float>(a.weights) + (u64)row * a.top_k;
  float sum = 0;
  for (u32 k = 0; k < a.top_k; k++) sum = fmaf(load(a.x, places[k], column), weights[k], sum);
  store(a.out, row, column, sum);
}
