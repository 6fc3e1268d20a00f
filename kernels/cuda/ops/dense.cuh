// What products of plain numbers have in common, and what happens to a sum before it is stored.
#pragma once
#include "device.cuh"

// The twin of `FinishArg` in src/ops/matmul/weight.rs.
struct Finish {
  u64 bias;        // f32, by column of the result, or 0
  float scale;     // multiplies the sum and the bias
  float soft_cap;  // c: the result becomes c tanh(result / c); 0: it stays
};

DI float finished(const Finish& f, float sum, u32 column) {
  float value = f.scale * (sum + (f.bias ? at<const float>(f.bias)[column] : 0.0f));
  return f.soft_cap > 0.0f ? f.soft_cap * tanhf(value / f.soft_cap) : value;
}

// The twin of `DenseArgs` in src/ops/matmul/dense.rs. blockIdx.z counts heads.
struct DenseArgs {
  Tensor x;        // [rows, width]; head h reads from column h * x_stride on
  Tensor w;        // [heads * outputs, cols]
  Tensor out;      // [rows, width]; head h writes from column first + h * out_stride on
  Finish finish;
  u32 rows;
  u32 outputs;     // of a head
  u32 x_stride;
  u32 out_stride;
  u32 first;
  u32 pad;
};
