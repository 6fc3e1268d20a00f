// Cuts of a row: top_k, top_p and typical_p keep the smallest set of best candidates that holds
// enough; and the draw from what is left.
//
// Two ways. As long as what may be kept is long, it is the row itself with up to three cut-offs
// that are evaluated on the way; each walk over the row costs. As soon as it is at most LIST
// candidates they are listed in shared memory, and cuts sort and add up that list. A cut of a row
// adds up weights in bins of equal width, lists what lies up to the bin with the boundary, and only
// if that does not fit (flat rows, ties) narrows the bin down to a key and the ties to an id.
#pragma once
#include "row.cuh"

enum Cut : u32 { TOP_K, TOP_P, TYPICAL };

// Keeps better keys, and of its own key the ids up to this.
struct Cutoff {
  u32 key, id;
};
DI bool keeps(Cutoff c, u32 key, u32 id) { return key < c.key || (key == c.key && id <= c.id); }
constexpr Cutoff KEEPS_ALL{0xffffffffu, 0xffffffffu};

struct Choice {
  Row row;
  float best;       // greatest value
  float sharpness;  // one over the temperature
  float floor;      // min_p
  float mean;       // of (value - best) * sharpness, weighted by mass: for typical_p
  Cutoff top_k, top_p, typical;
};

// What a cut weighs an element by: 0 when it is not a candidate. `key` orders candidates; `far`
// grows with it and spreads them evenly.
DI u64 weigh(const Choice& c, u32 cut, u32 id, float x, u32& key, float& far) {
  key = logit_key(x);
  far = c.best - x;
  if (!keeps(c.top_k, key, id)) return 0;
  if (cut == TOP_K) return 1;
  float z = __fmul_rn(__fsub_rn(x, c.best), c.sharpness);
  far = fabsf(z);
  key = as_bits(far);
  if (!keeps(c.top_p, key, id)) return 0;
  if (cut == TYPICAL) {
    far = fabsf(__fsub_rn(c.mean, z));
    key = as_bits(far);
    if (!keeps(c.typical, key, id)) return 0;
  }
  return mass_of<34>(z, c.floor);
}

constexpr u32 BINS = LIST;
constexpr float BINS_PER_UNIT = 80.0f;  // e^-25.6, the end of the last bin, has no mass
DI u32 bin_of(float far) { return (u32)fminf(far * BINS_PER_UNIT, (float)(BINS - 1)); }

// How much a cut keeps: a share of the total, or a number.
struct Goal {
  float share;
  u64 number;  // used when not 0
};
DI u64 target_of(Goal goal, u64 total) {
  if (goal.number) return goal.number;
  double target = (double)goal.share * (double)total;
  u64 whole = (u64)target;
  whole += (double)whole < target;
  return whole ? whole : 1;
}

// ---- over the list

// Gives the n entries of the list the keys of a cut, or only their ids, and sorts them.
DI void order_list(const Choice& c, u32 cut, bool by_id, u32 n, const Room& s) {
  for (u32 e = threadIdx.x; e < n; e += ROW_THREADS) {
    u64 entry = s.list[e];
    if (entry == NOTHING) continue;
    u32 id = (u32)entry, key;
    float far;
    u64 weight = weigh(c, cut, id, value(c.row, id), key, far);
    s.list[e] = weight == 0 ? NOTHING : candidate(by_id ? 0 : key, id);
  }
  __syncthreads();
  sort(s, n);
}

constexpr int OWN = LIST / ROW_THREADS;  // entries of a thread, side by side

// Weights of this thread's entries; the sum of those before them.
DI u64 list_weights(const Choice& c, u32 cut, u32 n, const Room& s, u64 (&own)[OWN], u64& total) {
  u64 sum = 0;
#pragma unroll
  for (int k = 0; k < OWN; k++) {
    u32 e = OWN * threadIdx.x + k, key;
    float far;
    u64 entry = e < n ? s.list[e] : NOTHING;
    own[k] = entry == NOTHING ? 0 : weigh(c, cut, (u32)entry, value(c.row, (u32)entry), key, far);
    sum += own[k];
  }
  return sum_before(sum, s, total);
}

// Keeps the best of the list; returns how many. They are sorted.
DI u32 cut_list(const Choice& c, u32 cut, Goal goal, u32 n, const Room& s) {
  order_list(c, cut, false, n, s);
  u64 own[OWN], total;
  u64 sum = list_weights(c, cut, n, s, own, total);
  u64 target = target_of(goal, total);
  if (threadIdx.x == 0) s.words[0] = n;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < OWN; k++) {
    if (sum < target && target <= sum + own[k]) s.words[0] = OWN * threadIdx.x + k + 1;
    sum += own[k];
  }
  return close_list(s);
}

DI u32 draw_list(const Choice& c, u64 share, u32 n, const Room& s) {
  order_list(c, TYPICAL, true, n, s);
  u64 own[OWN], total;
  u64 sum = list_weights(c, TYPICAL, n, s, own, total);
  u64 target = __umul64hi(share, total);
#pragma unroll
  for (int k = 0; k < OWN; k++) {
    if (sum <= target && target < sum + own[k]) s.words[0] = (u32)s.list[OWN * threadIdx.x + k];
    sum += own[k];
  }
  return close_list(s);
}

// ---- over the row

constexpr u64 ANY_KEY = ~0ull;

// Weight of an element, of those with one key only if that is asked for.
DI u64 weight_at(const Choice& c, u32 cut, u64 only, u32 id, float x) {
  u32 key;
  float far;
  u64 weight = weigh(c, cut, id, x, key, far);
  return only == ANY_KEY || only == key ? weight : 0;
}

// Sums of the warps' segments into s.sums, and of all.
DI u64 segment_sums(const Choice& c, u32 cut, u64 only, const Room& s) {
  u64 sum = 0;
  each<2>(c.row, [&](u32 id, float x) { sum += weight_at(c, cut, only, id, x); });
#pragma unroll
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(FULL, sum, o);
  if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (u32 i = 0; i < ROW_WARPS; i++) sum += s.sums[i];
  return sum;
}

// The first id where the running sum passes `target`, which is below the total; after segment_sums.
DI u32 find(const Choice& c, u32 cut, u64 only, u64 target, const Room& s) {
  u64 sum = 0;
  u32 warp = 0;
  while (warp < ROW_WARPS - 1 && sum + s.sums[warp] <= target) sum += s.sums[warp++];
  __syncthreads();
  // All threads share the one segment.
  Segment there = segment(c.row, warp);
  u32 part = (there.last - there.first + ROW_THREADS - 1) / ROW_THREADS;
  u32 first = min(there.first + threadIdx.x * part, there.last), last = min(first + part, there.last);
  u64 own = 0, total;
  auto add = [&](u32 id, float x) { own += weight_at(c, cut, only, id, x); };
  for (u32 q = first; q < last; q++) each_of(c.row, q, quad(c.row, q), add);
  sum += sum_before(own, s, total);
  if (sum <= target && target < sum + own) {
    auto walk = [&](u32 id, float x) {
      u64 weight = weight_at(c, cut, only, id, x);
      if (sum <= target && target < sum + weight) s.words[0] = id;
      sum += weight;
    };
    for (u32 q = first; q < last; q++) each_of(c.row, q, quad(c.row, q), walk);
  }
  return close_list(s);
}

DI u32 draw_row(const Choice& c, u64 share, const Room& s) {
  u64 total = segment_sums(c, TYPICAL, ANY_KEY, s);
  return find(c, TYPICAL, ANY_KEY, __umul64hi(share, total), s);
}

// A range of keys that is split into bins.
struct Range {
  bool linear;    // the first: all keys, bins of equal width in `far`
  u32 low, high;  // keys, both included
  u32 shift;
};

// Adds up weights in bins and finds the bin in which `target` is reached (from `goal` when it is 0);
// `above` grows by what lies in better bins. BINS: all together do not reach it.
DI u32 boundary(const Choice& c, u32 cut, Range range, Goal goal, u64& target, u64& above, const Room& s) {
  u32* bins = reinterpret_cast<u32*>(s.list);  // low and high halves
  for (u32 e = threadIdx.x; e < 2 * BINS; e += ROW_THREADS) bins[e] = 0;
  if (threadIdx.x == 0) s.words[0] = BINS;
  __syncthreads();
  each<2>(c.row, [&](u32 id, float x) {
    u32 key;
    float far;
    u64 weight = weigh(c, cut, id, x, key, far);
    if (weight == 0 || (!range.linear && (key < range.low || key > range.high))) return;
    u32 bin = range.linear ? bin_of(far) : (key - range.low) >> range.shift;
    u32 low = (u32)weight, old = atomicAdd(&bins[2 * bin], low);
    u32 high = (u32)(weight >> 32) + (old + low < old);
    if (high) atomicAdd(&bins[2 * bin + 1], high);
  });
  __syncthreads();
  u64 own[BINS / ROW_THREADS], sum = 0, total;
#pragma unroll
  for (int k = 0; k < BINS / ROW_THREADS; k++) {
    u32 bin = BINS / ROW_THREADS * threadIdx.x + k;
    own[k] = (u64)bins[2 * bin + 1] << 32 | bins[2 * bin];
    sum += own[k];
  }
  sum = above + sum_before(sum, s, total);
  if (target == 0) target = target_of(goal, total);
#pragma unroll
  for (int k = 0; k < BINS / ROW_THREADS; k++) {
    if (sum < target && target <= sum + own[k]) {
      s.words[0] = BINS / ROW_THREADS * threadIdx.x + k;
      s.sums[ROW_WARPS] = sum;
    }
    sum += own[k];
  }
  __syncthreads();
  u32 bin = s.words[0];
  if (bin < BINS) above = s.sums[ROW_WARPS];
  __syncthreads();
  return bin;
}

// Lists candidates up to a bin.
DI u32 list_row(const Choice& c, u32 cut, u32 bin, const Room& s) {
  open_list(s);
  each<2>(c.row, [&](u32 id, float x) {
    u32 key;
    float far;
    if (weigh(c, cut, id, x, key, far) && bin_of(far) <= bin) push(s, candidate(key, id));
  });
  return close_list(s);
}

// Keys of the candidates in a bin.
DI Range keys_of(const Choice& c, u32 cut, u32 bin, const Room& s) {
  u32 low = 0xffffffffu, high = 0;
  each<2>(c.row, [&](u32 id, float x) {
    u32 key;
    float far;
    if (weigh(c, cut, id, x, key, far) == 0 || bin_of(far) != bin) return;
    low = min(low, key);
    high = max(high, key);
  });
  low = (u32)least_of(low, s);
  high = ~(u32)least_of(~high, s);
  return Range{false, low, high, 0};
}

// Keeps the best of the row; true when they are in the list now, n of them, in no order.
DI bool cut_row(Choice& c, u32 cut, Goal goal, u32& n, const Room& s) {
  u64 target = 0, above = 0;
  u32 bin = boundary(c, cut, Range{true, 0, 0, 0}, goal, target, above, s);
  if (bin == BINS) return false;
  n = list_row(c, cut, bin, s);
  if (n <= LIST) {
    n = cut_list(c, cut, Goal{0, target}, n, s);
    return true;
  }
  Range range = keys_of(c, cut, bin, s);
  while (range.low < range.high) {
    u32 bits = 32 - __clz((int)(range.high - range.low));
    range.shift = bits > 11 ? bits - 11 : 0;
    bin = boundary(c, cut, range, goal, target, above, s);
    range.low += bin << range.shift;
    range.high = min(range.high, range.low + (1u << range.shift) - 1);
  }
  segment_sums(c, cut, range.low, s);
  Cutoff off{range.low, find(c, cut, range.low, target - above - 1, s)};
  if (cut == TOP_K) c.top_k = off;
  else if (cut == TOP_P) c.top_p = off;
  else c.typical = off;
  n = list_row(c, cut, BINS - 1, s);
  return n <= LIST;
}
