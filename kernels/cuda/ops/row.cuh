// A row of logits as a draw or a log-probability sees it: values, masses, orders, and what a block
// of ROW_THREADS threads does with a whole row or with a short list of candidates.
//
// Masses are whole numbers and keys are bits, so sums and cuts come out the same however a row is
// walked. The exponential is the CPU version's, operation by operation: masses are equal to its.
#pragma once
#include "device.cuh"

constexpr u32 ROW_THREADS = 512;
constexpr u32 ROW_WARPS = ROW_THREADS / 32;
constexpr u32 LIST = 2048;  // candidates that fit shared memory; more are looked up in the row
constexpr u32 NO_TOKEN = 0xffffffffu;
constexpr u32 LOWEST = 0xff800000u;  // -inf
constexpr u64 NOTHING = ~0ull;       // sorts behind every candidate

// Shared memory of a block.
struct Room {
  u64* list;   // [LIST] candidates, key << 32 | id; bins while a cut counts
  u64* sums;   // [ROW_WARPS + 1]
  u32* words;  // [2]
};
#define ROOM(name)                          \
  SHARED_ARRAY(u64, name##_list, LIST);     \
  SHARED_ARRAY(u64, name##_sums, ROW_WARPS + 1); \
  SHARED_ARRAY(u32, name##_words, 2);       \
  Room name{name##_list, name##_sums, name##_words}

struct Penalties { float repetition, presence, frequency; };

// [vocab] logits with bias and bans in them; penalties and the mask are applied on the way.
struct Row {
  const float* x;     // [vocab]
  const u16* counts;  // [vocab, rounded up to 8] or null: bit 15 in the prompt, below times in the output
  const u32* mask;    // [vocab / 32, rounded up] or null: bit t % 32 of word t / 32 is whether t may be drawn
  u32 vocab;
  const Penalties* penalties;  // shared: registers are what walks need most; null without counts
};

DI float penalized(const Row& r, float x, u32 count) {
  if (count == 0) return x;
  u32 made = count & 0x7fff;
  const Penalties& p = *r.penalties;
  x = x > 0 ? __fdiv_rn(x, p.repetition) : __fmul_rn(x, p.repetition);
  return __fsub_rn(__fsub_rn(x, made ? p.presence : 0.0f), __fmul_rn(p.frequency, (float)made));
}

// -inf where the bit is 0; a NaN must not hide behind a mask.
DI float masked(float x, u32 allowed) { return (allowed & 1) || x != x ? x : as_float(LOWEST); }

DI float value(const Row& r, u32 i) {
  float x = penalized(r, r.x[i], r.counts ? r.counts[i] : 0);
  return masked(x, r.mask ? r.mask[i / 32] >> (i % 32) : 1);
}

DI u32 quads(const Row& r) { return (r.vocab + 3) / 4; }

// The four values from 4 q on; -inf beyond the row.
DI F4 quad(const Row& r, u32 q) {
  u32 i = 4 * q;
  F4 v;
  if (r.vocab % 4 == 0) {
    v = *reinterpret_cast<const F4*>(r.x + i);
  } else {
    float low = as_float(LOWEST);
    v = F4{r.x[i], low, low, low};
    if (i + 1 < r.vocab) v.y = r.x[i + 1];
    if (i + 2 < r.vocab) v.z = r.x[i + 2];
    if (i + 3 < r.vocab) v.w = r.x[i + 3];
  }
  if (r.counts) {
    U2 c = *reinterpret_cast<const U2*>(r.counts + i);
    v.x = penalized(r, v.x, c.x & 0xffff);
    v.y = penalized(r, v.y, c.x >> 16);
    v.z = penalized(r, v.z, c.y & 0xffff);
    v.w = penalized(r, v.w, c.y >> 16);
  }
  if (r.mask) {
    u32 allowed = r.mask[q / 8] >> (q % 8 * 4);
    v.x = masked(v.x, allowed);
    v.y = masked(v.y, allowed >> 1);
    v.z = masked(v.z, allowed >> 2);
    v.w = masked(v.w, allowed >> 3);
  }
  return v;
}

// f(id, value) for the elements of one quad.
template <class F> DI void each_of(const Row& r, u32 q, F4 v, F& f) {
  u32 i = 4 * q;
  f(i, v.x);
  if (i + 1 < r.vocab) f(i + 1, v.y);
  if (i + 2 < r.vocab) f(i + 2, v.z);
  if (i + 3 < r.vocab) f(i + 3, v.w);
}

// Every warp has a segment of the row, in the order of ids.
struct Segment { u32 first, last; };  // quads
DI Segment segment(const Row& r, u32 warp) {
  u32 all = quads(r), part = (all + ROW_WARPS - 1) / ROW_WARPS;
  u32 first = min(warp * part, all);
  return Segment{first, min(first + part, all)};
}

// f(id, value) for every element of this warp's segment. DEEP quads a lane are asked for before the
// first is looked at: one block must keep a whole multiprocessor's share of memory busy.
template <int DEEP, class F> DI void each(const Row& r, F f) {
  Segment own = segment(r, threadIdx.x / 32);
  for (u32 q = own.first + threadIdx.x % 32; q < own.last; q += 32 * DEEP) {
    F4 v[DEEP];
#pragma unroll
    for (int k = 0; k < DEEP; k++)
      if (q + 32 * k < own.last) v[k] = quad(r, q + 32 * k);
#pragma unroll
    for (int k = 0; k < DEEP; k++)
      if (q + 32 * k < own.last) each_of(r, q + 32 * k, v[k], f);
  }
}

// ---- orders: the smaller key is the better one, ties by the smaller id

// Greater logits are better; zeros of both signs are equal.
DI u32 logit_key(float x) {
  u32 bits = as_bits(x);
  if (bits == 0x80000000u) bits = 0;
  return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}
constexpr u32 LOWEST_KEY = LOWEST;  // of -inf, the worst but for NaNs
DI float key_logit(u32 key) { return as_float(key & 0x80000000u ? key : ~key & 0x7fffffffu); }

DI u64 candidate(u32 key, u32 id) { return (u64)key << 32 | id; }

// ---- masses

// e^z as a whole number of 2^-UNITS, z <= 0; 0 below `floor`. No conversion between floats and
// 64-bit integers: those are slow on most cards.
template <u32 UNITS> DI u64 mass_of(float z, float floor) {
  if (!(z >= -29.0f)) return 0;  // under half a unit of 2^-41
  // z = n ln 2 + rest; adding 1.5 * 2^23 rounds to whole numbers.
  float shifted = __fadd_rn(__fmul_rn(z, 1.44269504088896341f), 12582912.0f);
  float n = __fsub_rn(shifted, 12582912.0f);
  float rest = fmaf(n, 2.1219444e-4f, fmaf(n, -355.0f / 512.0f, z));
  float series = 1.0f / 5040.0f;
  series = fmaf(series, rest, 1.0f / 720.0f);
  series = fmaf(series, rest, 1.0f / 120.0f);
  series = fmaf(series, rest, 1.0f / 24.0f);
  series = fmaf(series, rest, 1.0f / 6.0f);
  series = fmaf(series, rest, 0.5f);
  float power = __fadd_rn(fmaf(__fmul_rn(rest, rest), series, rest), 1.0f);
  u32 bits = as_bits(power) + ((as_bits(shifted) - 0x4b400000u) << 23);
  if (as_float(bits) < floor) return 0;
  bits += UNITS << 23;
  // From 2^23 on an f32 is whole; below, adding 2^23 rounds it.
  if (bits < 0x4b000000u) return as_bits(__fadd_rn(as_float(bits), 8388608.0f)) - 0x4b000000u;
  return (u64)((bits & 0x7fffffu) | 0x800000u) << ((bits >> 23) - 150);
}

// ---- the block

// Sum over the block, in every thread.
DI u64 total_of(u64 v, const Room& s) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(FULL, v, o);
  if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = v;
  __syncthreads();
  u64 sum = 0;
  for (u32 i = 0; i < ROW_WARPS; i++) sum += s.sums[i];
  __syncthreads();
  return sum;
}

DI u64 least_of(u64 v, const Room& s) {
#pragma unroll
  for (int o = 16; o; o >>= 1) { u64 w = __shfl_xor_sync(FULL, v, o); v = w < v ? w : v; }
  if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = v;
  __syncthreads();
  u64 least = s.sums[0];
  for (u32 i = 1; i < ROW_WARPS; i++) least = s.sums[i] < least ? s.sums[i] : least;
  __syncthreads();
  return least;
}

// Sum over the threads before this one.
DI u64 sum_before(u64 own, const Room& s, u64& total) {
  u64 v = own;
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int o = 1; o < 32; o *= 2) {
    u64 w = __shfl_up_sync(FULL, v, o);
    v += lane >= o ? w : 0;
  }
  if (lane == 31) s.sums[warp] = v;
  __syncthreads();
  u64 before = 0;
  total = 0;
  for (u32 i = 0; i < ROW_WARPS; i++) {
    before += i < warp ? s.sums[i] : 0;
    total += s.sums[i];
  }
  __syncthreads();
  return before + v - own;
}

// Sorts the first n entries of the list, smallest first. Bitonic; short lists by one warp.
DI void sort(const Room& s, u32 n) {
  u32 size = 32;
  while (size < n) size *= 2;
  for (u32 e = n + threadIdx.x; e < size; e += ROW_THREADS) s.list[e] = NOTHING;
  __syncthreads();
  bool single = size <= 64;
  u32 step = single ? 32 : ROW_THREADS;
  if (!single || threadIdx.x < 32) {
    for (u32 k = 2; k <= size; k *= 2) {
      for (u32 j = k / 2; j; j /= 2) {
        for (u32 e = threadIdx.x; e < size / 2; e += step) {
          u32 low = 2 * e - (e & (j - 1)), high = low + j;
          u64 x = s.list[low], y = s.list[high];
          if ((x > y) == ((low & k) == 0)) {
            s.list[low] = y;
            s.list[high] = x;
          }
        }
        if (single) __syncwarp();
        else __syncthreads();
      }
    }
  }
  __syncthreads();
}

// The list is filled by whoever finds a candidate; words[0] counts, beyond LIST only roughly.
DI void open_list(const Room& s) {
  if (threadIdx.x == 0) s.words[0] = 0;
  __syncthreads();
}
DI void push(const Room& s, u64 entry) {
  if (*const_cast<volatile u32*>(s.words) > LIST) return;
  u32 place = atomicAdd(s.words, 1u);
  if (place < LIST) s.list[place] = entry;
}
// Entries; more than LIST: they did not fit.
DI u32 close_list(const Room& s) {
  __syncthreads();
  u32 n = s.words[0];
  __syncthreads();
  return n;
}

// ---- a row's best

struct Best {
  u64 first;  // the best candidate; 0 with a NaN in the row
  float own;  // this thread's greatest
};

DI Best best_of(const Row& r, const Room& s) {
  float own = as_float(LOWEST);
  u32 id = NO_TOKEN;
  bool nan = false;
  each<4>(r, [&](u32 i, float x) {
    nan |= x != x;
    if (x > own) {
      own = x;
      id = i;
    }
  });
  return Best{least_of(nan ? 0 : candidate(logit_key(own), id), s), own};
}
// Whether anything can be drawn: no NaN, no +inf, not -inf everywhere.
DI bool usable(u64 first) { return first != 0 && (as_bits(key_logit((u32)(first >> 32))) & 0x7fffffffu) < 0x7f800000u; }

constexpr u32 SHORT_MAX = 256;  // of more, the threads' maxima say little

// Lists the k best elements, k <= SHORT_MAX, and some more: at least k are no worse than the k-th
// best of the threads' maxima. None with a key above `worst`, so there may be less than k. Unsorted;
// more than LIST: it did not work.
DI u32 shortlist(const Row& r, float own, u32 k, u32 worst, const Room& s) {
  s.list[threadIdx.x] = logit_key(own);
  __syncthreads();
  sort(s, ROW_THREADS);
  u32 limit = min((u32)s.list[k - 1], worst);
  __syncthreads();
  open_list(s);
  each<4>(r, [&](u32 i, float x) {
    u32 key = logit_key(x);
    if (key <= limit) push(s, candidate(key, i));
  });
  return close_list(s);
}
