// Norms of rows, and the residual stream's additions.
//
// norm      out = norm(x)
// add_norm  residual += scale * delta; out = norm(residual), in one pass over memory
// add       x += scale * delta
//
// One block a row. A row is kept in registers between the sum and the division (32 elements a
// thread at most, widths to 16384); longer rows are read again. All bound by memory.
#include "device.cuh"

struct NormArgs {
  Tensor x;         // [rows, width]; add_norm: residual, read and written
  Tensor delta;     // [rows, width]; address 0: nothing is added
  Tensor out;       // [rows, width]
  u64 weight;       // f32 [width]
  u64 bias;         // f32 [width] or 0
  float scale;      // of delta
  float eps;        // added to the mean square or variance
  u32 centered;     // 1: layer norm, 0: RMS norm
  u32 pad;
};

DI float summed(const NormArgs& a, u32 row, u32 i) {
  float v = load(a.x, row, i);
  if (a.delta.address) v = fmaf(load(a.delta, row, i), a.scale, v);
  return v;
}

KERNEL(row_norm, NormArgs, 256, 1) {
  SHARED_ARRAY(float, room, 32);
  u32 row = blockIdx.x, width = a.x.width;
  float kept[32];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < 32; k++) {
    u32 i = threadIdx.x + 256 * k;
    kept[k] = i < width ? summed(a, row, i) : 0.0f;
    sum += a.centered ? kept[k] : kept[k] * kept[k];
  }
  for (u32 i = threadIdx.x + 8192; i < width; i += 256) {
    float v = summed(a, row, i);
    sum += a.centered ? v : v * v;
  }
  float mean = block_sum(sum, room) / (float)width;
  if (a.centered) {
    float squares = 0;
#pragma unroll
    for (int k = 0; k < 32; k++) {
      float v = kept[k] - mean;
      squares += threadIdx.x + 256 * k < width ? v * v : 0.0f;
    }
    for (u32 i = threadIdx.x + 8192; i < width; i += 256) {
      float v = summed(a, row, i) - mean;
      squares += v * v;
    }
    sum = block_sum(squares, room) / (float)width;
  } else {
    sum = mean;
    mean = 0;
  }
  float inverse = 1.0f / sqrtf(sum + a.eps);
  const float* weight = at<const float>(a.weight);
  const float* bias = at<const float>(a.bias);
#pragma unroll
  for (int k = 0; k < 32; k++) {
    u32 i = threadIdx.x + 256 * k;
    if (i >= width) break;
    if (a.delta.address) store(a.x, row, i, kept[k]);
    store(a.out, row, i, (kept[k] - mean) * inverse * weight[i] + (a.bias ? bias[i] : 0.0f));
  }
  for (u32 i = threadIdx.x + 8192; i < width; i += 256) {
    float v = summed(a, row, i);
    if (a.delta.address) store(a.x, row, i, v);
    store(a.out, row, i, (v - mean) * inverse * weight[i] + (a.bias ? bias[i] : 0.0f));
  }
}

struct AddArgs {
  Tensor x;      // [rows, width]
  Tensor delta;  // [rows, width]
  u64 count;     // rows * width
  float scale;
  u32 pad;
};

KERNEL(row_add, AddArgs, 256, 1) {
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= a.count) return;
  u32 row = (u32)(i / a.x.width), column = (u32)(i % a.x.width);
  store(a.x, row, column, fmaf(load(a.delta, row, column), a.scale, load(a.x, row, column)));
}
