// Operands and results of products on the vendor's library.
//
// operand_rows  x as the operands' type, columns perhaps in another order
// operand_f8    x as e4m3fn, each row with a scale of its own that takes its largest element to 448
// finish_rows   results, times the scales of their row and column, plus bias, scaled and capped
//
// All bound by memory.
#include "dense.cuh"

struct OperandArgs {
  Tensor x;    // [rows, width]
  Tensor out;  // [rows, cols]
  u64 order;   // u32 [cols]: column j of out is column first + order[j] of x; 0: as they come
  u64 count;   // rows * groups of 4 of cols, the last perhaps not whole
  u32 first;
  u32 pad;
};

KERNEL(operand_rows, OperandArgs, 256, 1) {
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= a.count) return;
  u32 cols = a.out.width, groups = (cols + 3) / 4;
  u32 row = (u32)(i / groups), column = (u32)(i % groups) * 4;
  const u32* order = at<const u32>(a.order);
  if (!order && (a.x.width | a.first | cols) % 4 == 0) {
    store4(a.out, row, column, load4(a.x, row, a.first + column));
    return;
  }
#pragma unroll
  for (u32 j = column; j < column + 4; j++) {
    if (j < cols) store(a.out, row, j, load(a.x, row, a.first + (order ? order[j] : j)));
  }
}

struct F8Args {
  Tensor x;    // [rows, width], width a multiple of 4
  u64 out;     // e4m3fn [rows, width]
  u64 scales;  // f32 [rows]: x = scale * out
};

KERNEL(operand_f8, F8Args, 256, 1) {
  SHARED_ARRAY(float, room, 32);
  const u32 row = blockIdx.x, width = a.x.width;
  float most = 0;
  for (u32 i = 4 * threadIdx.x; i < width; i += 1024) {
    F4 v = load4(a.x, row, i);
    most = fmaxf(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))), most);
  }
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = most;
  __syncthreads();
  most = room[0];
#pragma unroll
  for (int i = 1; i < 8; i++) most = fmaxf(most, room[i]);
  const float scale = most / 448.0f;
  if (threadIdx.x == 0) at<float>(a.scales)[row] = scale;
  // A row of zeros stays one, and so do sizes too small to have a scale.
  const float inverse = scale > 1e-37f ? 1.0f / scale : 0.0f;
  for (u32 i = 4 * threadIdx.x; i < width; i += 1024) {
    F4 v = load4(a.x, row, i);
    u32 low = f32_to_f8(v.x * inverse) | (u32)f32_to_f8(v.y * inverse) << 8;
    u32 high = f32_to_f8(v.z * inverse) | (u32)f32_to_f8(v.w * inverse) << 8;
    *at<u32>(a.out + (u64)row * width + i) = low | high << 16;
  }
}

struct FinishArgs {
  Tensor out;    // [rows, width], in place
  u64 rows_by;   // f32 [rows]: multiplies each row; 0: does not
  u64 columns_by;  // f32 [columns], alike
  Finish finish;
  u64 count;     // rows * columns
  u32 first;     // column of out that column 0 is
  u32 columns;
  float factor;  // multiplies all
  u32 pad;
};

KERNEL(finish_rows, FinishArgs, 256, 1) {
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= a.count) return;
  u32 row = (u32)(i / a.columns), column = (u32)(i % a.columns);
  float value = load(a.out, row, a.first + column) * a.factor;
  if (a.rows_by) value *= at<const float>(a.rows_by)[row];
  if (a.columns_by) value *= at<const float>(a.columns_by)[column];
  store(a.out, row, a.first + column, finished(a.finish, value, a.first + column));
}
