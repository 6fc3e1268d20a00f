// Products of a few rows: see matmul_few_bf16.cu, whose kernels and those of matmul_few_f16.cu are
// instances of `few`.
#pragma once
#include "weights.cuh"
#include "dense.cuh"

#define FEW_WARPS 8

struct FewArgs {
  Tensor x;         // [rows, width] of the operands' type, width a multiple of 8
  Tensor out;       // [rows, width]
  Weight w;         // [heads * outputs, cols]
  Finish finish;
  u32 rows;
  u32 outputs;      // rows of w that belong to a head; without heads all
  u32 x_stride;     // columns of x from head to head, a multiple of 8
  u32 out_stride;   // columns of out from head to head
};

template <bool TABLE, int TILES, int COLUMNS> struct FewRoom {
  // Sums of a pair of columns of the mma, as floats, or the table.
  static constexpr int BOTH = COLUMNS < 2 ? COLUMNS : 2, WIDTH = 16 * TILES + 4;
  static constexpr int SUMS = FEW_WARPS * 8 * BOTH * WIDTH;
  static constexpr int WORDS = TABLE && SUMS < PAIRS ? PAIRS : SUMS;
};

// A block: 16 TILES columns of the result by 8 COLUMNS rows; its warps share k chunk by chunk.
// blockIdx.x counts columns, y rows, z heads.
template <class V, bool TABLE, int TILES, int COLUMNS> DI void few(const FewArgs& a) {
  typedef FewRoom<TABLE, TILES, COLUMNS> Room;
  SHARED_ARRAY(u32, room, Room::WORDS);
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.z;
  const u32 first = 16 * TILES * blockIdx.x, first_row = 8 * COLUMNS * blockIdx.y;
  if (TABLE) {
    fill_pairs<typename V::Type>(a.w, room);
    __syncthreads();
  }
  // Chunks on their way from memory at a time: as many as registers hold. Many columns keep tensor
  // cores busy long enough for other warps' chunks to arrive.
  constexpr int WORDS = sizeof(typename V::Raw) / 4;
  constexpr int DEPTH = COLUMNS == 8 ? 1 : COLUMNS == 4 ? (WORDS > 8 ? 1 : 2) : WORDS > 8 ? 2 : WORDS > 6 ? 3 : 4;
  float sum[COLUMNS][TILES][4] = {};
  {
    V w(a.w, head * a.outputs + first, (head + 1) * a.outputs, room);
    u32 at_x[COLUMNS];
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
      u32 row = first_row + 8 * n + lane / 4;
      at_x[n] = row < a.rows ? row * a.x.width + head * a.x_stride : NO_ROW;
    }
    sum_rows<V, TILES, COLUMNS, DEPTH>(w, a.w.cols, a.x.address, at_x, warp, FEW_WARPS, sum);
  }
  if (TABLE) __syncthreads();
  // The warps' sums meet in shared memory, two columns of the mma at a time, and are added in the
  // order of the warps.
  float* sums = reinterpret_cast<float*>(room);
  constexpr int BOTH = Room::BOTH, WIDTH = Room::WIDTH;
#pragma unroll
  for (int pair = 0; pair < COLUMNS / BOTH; pair++) {
    if (pair) __syncthreads();
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
      for (int n = 0; n < BOTH; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          u32 row = 8 * n + 2 * (lane % 4) + e % 2, column = 16 * i + 8 * (e / 2) + lane / 4;
          sums[(warp * 8 * BOTH + row) * WIDTH + column] = sum[pair * BOTH + n][i][e];
        }
      }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 8 * BOTH * 16 * TILES; i += 32 * FEW_WARPS) {
      u32 row = i / (16 * TILES), column = i % (16 * TILES);
      u32 out_row = first_row + 8 * BOTH * pair + row;
      if (out_row >= a.rows || first + column >= a.outputs) continue;
      float total = 0;
#pragma unroll
      for (int other = 0; other < FEW_WARPS; other++) total += sums[(other * 8 * BOTH + row) * WIDTH + column];
      u32 out_column = a.w.first + head * a.out_stride + first + column;
      store(a.out, out_row, out_column, finished(a.finish, total * a.w.factor, out_column));
    }
  }
}
