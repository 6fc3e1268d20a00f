// Low-rank additions (LoRA, arXiv 2106.09685): out[r][first + o] += scale * (up * (down * x[r]))[o].
//
// low_rank_down   inner[r] = down * x[r], f32: a warp has 2 ranks of 4 rows and splits k over lanes
// low_rank_up     out[r] += scale * up * inner[r]: a thread has 2 outputs of 4 rows
//
// Rows of four are computed together so that a batch of one adapter reads its factors once for
// four rows; where their adapters differ they are computed one adapter after the other. A row's
// sums have the same order either way. Rows without a pair leave at once. Both bound by memory
// while rows are few; many rows would want tensor cores.
#include "device.cuh"

#define ROWS 4
#define RANK_MAX 256

// Stands at the head of a pair's memory: the twin of `Header` in src/ops/low_rank.rs.
struct Pair {
  u64 down;    // [ranks, cols rounded up to 8], of a.kind; padded with zeros
  u64 up;      // [rank][outs rounded up to 2], of a.kind; padded with a zero
  u32 rank;    // ranks is the next even number
  u32 outs;
  float scale;
  u32 pad;
};

struct LowRankArgs {
  Tensor x;      // [rows, cols]
  Tensor out;    // [rows, width], read and written
  u64 inner;     // f32 [rows, RANK_MAX], between the two kernels
  u64 adapters;  // u32 [rows], from 1; 0: none
  u64 pairs;     // u64 [room]: address of adapter n's pair at n - 1; 0: none
  u64 count;     // u32: rows that are real
  u32 room;
  u32 first;     // column of out
  u32 kind;      // of the factors, as Kind
  u32 pad;
};

// The pair of a row; null: none.
DI const Pair* pair_of(const LowRankArgs& a, u32 row) {
  if (row >= *at<const u32>(a.count)) return nullptr;
  u32 adapter = at<const u32>(a.adapters)[row] - 1;
  return adapter < a.room ? at<const Pair>(at<const u64>(a.pairs)[adapter]) : nullptr;
}

// The pairs of four rows. `at_once[r]`: the rows from r on of the same pair, as bits, if r is the
// first of them; 0 otherwise.
DI void group_rows(const LowRankArgs& a, u32 row, const Pair* (&pairs)[ROWS], u32 (&at_once)[ROWS]) {
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    pairs[r] = pair_of(a, row + r);
    at_once[r] = pairs[r] ? 1u << r : 0;
  }
#pragma unroll
  for (int r = ROWS - 1; r > 0; r--)
#pragma unroll
    for (int before = 0; before < r; before++)
      if (at_once[r] && pairs[before] == pairs[r]) { at_once[before] |= at_once[r]; at_once[r] = 0; }
}

// Eight weights from element i, a multiple of 8.
DI F8 weights8(u64 address, u32 kind, u64 i) {
  Tensor flat = {address, 0, kind};
  return load8(flat, 0, (u32)i);
}

// Eight elements of a row; 0 beyond its end.
DI F8 row8(const Tensor& x, u32 row, u32 column) {
  if (x.width % 8 == 0) return load8(x, row, column);
  F8 f;
#pragma unroll
  for (int i = 0; i < 8; i++) f.v[i] = column + i < x.width ? load(x, row, column + i) : 0.0f;
  return f;
}

KERNEL(low_rank_down, LowRankArgs, 128, 1) {
  u32 lane = threadIdx.x % 32, row = blockIdx.x * ROWS;
  u32 rank = (blockIdx.y * 4 + threadIdx.x / 32) * 2;
  const Pair* pairs[ROWS];
  u32 at_once[ROWS];
  group_rows(a, row, pairs, at_once);
  u32 cols = (a.x.width + 7) / 8 * 8;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (!at_once[r] || rank >= pairs[r]->rank) continue;
    u64 down = pairs[r]->down;
    float sums[2][ROWS] = {};
    for (u32 k = lane * 8; k < cols; k += 256) {
      F8 w0 = weights8(down, a.kind, rank * cols + k), w1 = weights8(down, a.kind, (rank + 1) * cols + k);
#pragma unroll
      for (int i = r; i < ROWS; i++) {
        if (!(at_once[r] >> i & 1)) continue;
        F8 x = row8(a.x, row + i, k);
#pragma unroll
        for (int j = 0; j < 8; j++) {
          sums[0][i] = fmaf(w0.v[j], x.v[j], sums[0][i]);
          sums[1][i] = fmaf(w1.v[j], x.v[j], sums[1][i]);
        }
      }
    }
#pragma unroll
    for (int i = r; i < ROWS; i++) {
      float s0 = warp_sum(sums[0][i]), s1 = warp_sum(sums[1][i]);
      if (lane == 0 && at_once[r] >> i & 1)
        *at<F2>(a.inner + 4ull * ((row + i) * RANK_MAX + rank)) = F2{s0, s1};
    }
  }
}

KERNEL(low_rank_up, LowRankArgs, 128, 1) {
  SHARED_ARRAY(F4, inner, RANK_MAX);  // of the four rows
  u32 row = blockIdx.x * ROWS, o = (blockIdx.y * 128 + threadIdx.x) * 2;
  const Pair* pairs[ROWS];
  u32 at_once[ROWS];
  group_rows(a, row, pairs, at_once);
  u32 ranks = 0;
#pragma unroll
  for (int r = 0; r < ROWS; r++) ranks = pairs[r] && pairs[r]->rank > ranks ? pairs[r]->rank : ranks;
  // Rows of a smaller rank have old numbers beyond it, which nothing reads.
  for (u32 j = threadIdx.x; j < ranks; j += 128) {
    const float* from = at<const float>(a.inner) + row * RANK_MAX + j;
    F4 x = {0.0f, 0.0f, 0.0f, 0.0f};
    if (pairs[0]) x.x = from[0];
    if (pairs[1]) x.y = from[RANK_MAX];
    if (pairs[2]) x.z = from[2 * RANK_MAX];
    if (pairs[3]) x.w = from[3 * RANK_MAX];
    inner[j] = x;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (!at_once[r] || o >= pairs[r]->outs) continue;
    Pair pair = *pairs[r];
    u32 outs = (pair.outs + 1) / 2 * 2;
    float sums[2][ROWS] = {};
#pragma unroll 4
    for (u32 j = 0; j < pair.rank; j++) {
      F2 w;
      if (a.kind == KIND_F32) w = at<const F2>(pair.up)[(j * outs + o) / 2];
      else {
        u32 both = at<const u32>(pair.up)[(j * outs + o) / 2];
        w = a.kind == KIND_BF16 ? unpack<bf16>(both) : unpack<f16>(both);
      }
      F4 x = inner[j];
      float t[ROWS] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int i = r; i < ROWS; i++) {
        sums[0][i] = fmaf(w.x, t[i], sums[0][i]);
        sums[1][i] = fmaf(w.y, t[i], sums[1][i]);
      }
    }
#pragma unroll
    for (int i = r; i < ROWS; i++) {
      if (!(at_once[r] >> i & 1)) continue;
      u32 column = a.first + o;
      store(a.out, row + i, column, fmaf(sums[0][i], pair.scale, load(a.out, row + i, column)));
      if (o + 1 < pair.outs) store(a.out, row + i, column + 1, fmaf(sums[1][i], pair.scale, load(a.out, row + i, column + 1)));
    }
  }
}
