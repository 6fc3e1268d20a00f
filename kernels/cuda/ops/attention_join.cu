// Joins the ranges that a context was cut into: each left sums of values, its greatest score and
// its sum of weights. Ranges are added in their order. One block a piece of work and head; it
// leaves at once where nothing was cut, so that it can always be launched.
#include "attention.cuh"

struct JoinArgs {
  AttentionArgs all;
  u64 joins;  // U4 [*count]: first row, rows, first row of partial results, ranges
  u64 count;  // u32
};

KERNEL(attention_join, JoinArgs, 128, 1) {
  if (blockIdx.x >= *at<const u32>(a.count)) return;
  U4 join = at<const U4>(a.joins)[blockIdx.x];
  u32 head = blockIdx.y, heads = a.all.heads, dim = a.all.value_dim, ranges = join.w;
  for (u32 i = 0; i < join.y; i++) {
    // Range r of position i is row i + r * len of the partial results.
    u64 first = (u64)(join.z + i) * heads + head, step = (u64)join.y * heads;
    const F2* states = at<const F2>(a.all.states);
    float best = NEVER, mass = 0;
    for (u32 r = 0; r < ranges; r++) best = max(best, states[first + r * step].x);
    for (u32 r = 0; r < ranges; r++) {
      F2 state = states[first + r * step];
      mass = fmaf(state.y, exp2_fast(state.x - best), mass);
    }
    float share = share_of(a.all, head, best, mass);
    for (u32 d = threadIdx.x; d < dim; d += 128) {
      float sum = 0;
#pragma unroll 4
      for (u32 r = 0; r < ranges; r++)
        sum = fmaf(at<const float>(a.all.parts)[(first + r * step) * dim + d], exp2_fast(states[first + r * step].x - best), sum);
      store(a.all.out, join.x + i, head * dim + d, sum * share);
    }
  }
}
