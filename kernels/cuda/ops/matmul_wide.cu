// Products in f32 arithmetic on CUDA cores: x and w f32, bf16 or f16 in any mix, any shape.
//
// wide_few   up to 8 rows: a warp makes one column of the result, its lanes share k
// wide_tile  more rows: 64 x 64 of the result a block, operands widened on the way to shared memory
//
// For f32 models and for what stays f32 in others (routers of experts), and for shapes that the
// tensor-core kernels do not take (rows that do not begin 16-byte aligned). Where weights are 16 bits
// and aligned, those are several times as fast.
#include "dense.cuh"

// Four elements of a row from column first + k on, zeros from k = cols on; `vectors`: rows and first
// are such that four at once are aligned.
DI F4 four(const Tensor& x, u32 row, u32 first, u32 k, u32 cols, bool vectors) {
  if (vectors && k + 4 <= cols) return load4(x, row, first + k);
  float v[4];
#pragma unroll
  for (u32 i = 0; i < 4; i++) v[i] = k + i < cols ? load(x, row, first + k + i) : 0.0f;
  return F4{v[0], v[1], v[2], v[3]};
}

DI float dot(F4 a, F4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

#define WIDE_ROWS 8

KERNEL(wide_few, DenseArgs, 128, 4) {
  const u32 lane = threadIdx.x % 32, head = blockIdx.z, cols = a.w.width;
  const u32 output = 4 * blockIdx.x + threadIdx.x / 32, first = head * a.x_stride;
  if (output >= a.outputs) return;
  const bool x_vectors = (a.x.width | first) % 4 == 0, w_vectors = cols % 4 == 0;
  float sum[WIDE_ROWS] = {};
#pragma unroll 2
  for (u32 k = 4 * lane; k < cols; k += 128) {
    F4 w = four(a.w, head * a.outputs + output, 0, k, cols, w_vectors);
#pragma unroll
    for (int row = 0; row < WIDE_ROWS; row++)
      if (row < a.rows) sum[row] = dot(four(a.x, row, first, k, cols, x_vectors), w, sum[row]);
  }
#pragma unroll
  for (int row = 0; row < WIDE_ROWS; row++) {
    float total = warp_sum(sum[row]);
    u32 column = a.first + head * a.out_stride + output;
    if (lane == 0 && row < a.rows) store(a.out, row, column, finished(a.finish, total, column));
  }
}

// Elements of k in shared memory at a time, and the length of its rows: padded, so that fewer writes
// meet in a bank.
#define WIDE_K 16
#define WIDE_LINE 68

KERNEL(wide_tile, DenseArgs, 256, 2) {
  SHARED_ARRAY(float, xs, WIDE_K * WIDE_LINE);
  SHARED_ARRAY(float, ws, WIDE_K * WIDE_LINE);
  const u32 head = blockIdx.z, cols = a.w.width, first = head * a.x_stride;
  const u32 first_row = 64 * blockIdx.y, first_output = 64 * blockIdx.x;
  const bool x_vectors = (a.x.width | first) % 4 == 0, w_vectors = cols % 4 == 0;
  // A thread loads four of k of a row of each operand, and makes 4 x 4 sums.
  const u32 line = threadIdx.x / 4, k4 = threadIdx.x % 4 * 4;
  const bool x_there = first_row + line < a.rows, w_there = first_output + line < a.outputs;
  const u32 r = threadIdx.x / 16 * 4, o = threadIdx.x % 16 * 4;
  const F4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
  float sum[4][4] = {};
  F4 x = x_there ? four(a.x, first_row + line, first, k4, cols, x_vectors) : zero;
  F4 w = w_there ? four(a.w, head * a.outputs + first_output + line, 0, k4, cols, w_vectors) : zero;
  for (u32 k = 0; k < cols; k += WIDE_K) {
    xs[k4 * WIDE_LINE + line] = x.x;
    xs[(k4 + 1) * WIDE_LINE + line] = x.y;
    xs[(k4 + 2) * WIDE_LINE + line] = x.z;
    xs[(k4 + 3) * WIDE_LINE + line] = x.w;
    ws[k4 * WIDE_LINE + line] = w.x;
    ws[(k4 + 1) * WIDE_LINE + line] = w.y;
    ws[(k4 + 2) * WIDE_LINE + line] = w.z;
    ws[(k4 + 3) * WIDE_LINE + line] = w.w;
    __syncthreads();
    // The next ones are on their way meanwhile; behind the end they are zeros.
    if (x_there) x = four(a.x, first_row + line, first, k + WIDE_K + k4, cols, x_vectors);
    if (w_there) w = four(a.w, head * a.outputs + first_output + line, 0, k + WIDE_K + k4, cols, w_vectors);
#pragma unroll
    for (int i = 0; i < WIDE_K; i++) {
      F4 rows = *reinterpret_cast<const F4*>(&xs[i * WIDE_LINE + r]);
      F4 outputs = *reinterpret_cast<const F4*>(&ws[i * WIDE_LINE + o]);
      const float xv[4] = {rows.x, rows.y, rows.z, rows.w}, wv[4] = {outputs.x, outputs.y, outputs.z, outputs.w};
#pragma unroll
      for (int p = 0; p < 4; p++) {
#pragma unroll
        for (int q = 0; q < 4; q++) sum[p][q] = fmaf(xv[p], wv[q], sum[p][q]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int p = 0; p < 4; p++) {
#pragma unroll
    for (int q = 0; q < 4; q++) {
      u32 row = first_row + r + p, output = first_output + o + q;
      if (row >= a.rows || output >= a.outputs) continue;
      u32 column = a.first + head * a.out_stride + output;
      store(a.out, row, column, finished(a.finish, sum[p][q], column));
    }
  }
}
