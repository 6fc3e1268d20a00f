// Rows choose their experts, and are sorted by them.
//
// route_choose   a warp a row, up to 512 experts in registers (16 a lane): the greatest key is taken
//                top_k times, ties by the smaller number, a NaN after all numbers
// route_sort     one block: a counting sort of all choices that keeps rows of an expert in order,
//                so nothing depends on which warp came first; and the tiles in which expert_matmul
//                takes the sorted rows
//
// A second launch costs less than choices that wait for each other. One block sorts 65,536 choices
// in two passes over 256 KiB, little beside the products of so many rows.
#include "device.cuh"

#define EXPERTS_MAX 512
#define OF_LANE (EXPERTS_MAX / 32)
#define NONE 0xffffffffu

struct ChooseArgs {
  Tensor logits;   // [rows, experts]
  u64 count;       // u32: rows that are real
  u64 correction;  // f32 [experts] or 0
  u64 chosen;      // u32 [rows, top_k], out: best first; NONE in rows that are not real
  u64 weights;     // f32 [rows, top_k], out
  u32 rows;
  u32 experts;
  u32 top_k;       // up to 32
  u32 sigmoid;     // 1: sigmoid of each, 0: softmax over all
  u32 groups;      // 0: no groups
  u32 groups_kept;
  u32 two_best;    // a group's score is the sum of its two best
  u32 normalise;
  float scale;
  u32 pad;
};

struct SortArgs {
  u64 count;    // u32: rows that are real
  u64 chosen;   // u32 [rows, top_k]
  u64 places;   // u32 [rows, top_k], out: where the row stands for this expert; NONE: nowhere
  u64 sources;  // u32 [rows * top_k], out: the row that stands there
  u64 tiles;    // U4 [tiles], out: expert, first place, places, 0
  u64 number;   // u32, out: tiles
  u32 rows;
  u32 experts;
  u32 top_k;
  u32 tile;     // places of a tile at most
};

// A key and its number as one integer: greater is better. 0: taken, or not there.
DI u64 packed(float key, u32 number) {
  u32 bits = as_bits(key + 0.0f);  // -0 becomes 0
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (u64)(key == key ? bits : 0) << 32 | (NONE - number);
}

// The number of the greatest of the warp's keys, in every lane; it is taken away.
DI u32 take_best(u64 (&keys)[OF_LANE]) {
  u64 best = 0;
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) best = keys[i] > best ? keys[i] : best;
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    u64 other = __shfl_xor_sync(FULL, best, o);
    best = other > best ? other : best;
  }
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) keys[i] = keys[i] == best ? 0 : keys[i];
  return NONE - (u32)best;
}

// Scores of the experts lane, lane + 32, ...; 0 beyond the last.
DI void scores(const ChooseArgs& a, u32 row, u32 lane, float (&x)[OF_LANE]) {
  float shift = as_float(0xff800000u), sum = 0;
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) {
    u32 e = lane + 32 * i;
    x[i] = e < a.experts ? load(a.logits, row, e) : 0.0f;
    // A NaN is no maximum, but makes its own power and so the sum a NaN.
    if (e < a.experts && x[i] > shift) shift = x[i];
  }
  shift = warp_max(shift);
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) {
    bool there = lane + 32 * i < a.experts;
    if (a.sigmoid) x[i] = 1.0f / (1.0f + expf(-x[i]));
    else if (there) x[i] = expf(x[i] - shift);
    sum += there ? x[i] : 0.0f;
  }
  if (a.sigmoid) return;
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) x[i] /= sum;
}

// Takes away the keys of groups that are not kept. `keys` holds those of all experts.
DI void keep_groups(const ChooseArgs& a, u32 lane, const float* keys, u64 (&open)[OF_LANE]) {
  u32 size = a.experts / a.groups, kept = 0;
  u64 groups[OF_LANE];
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) {
    u32 group = lane + 32 * i;
    groups[i] = 0;
    if (group >= a.groups) continue;
    float first = as_float(0xff800000u), second = first;
    for (u32 e = group * size; e < (group + 1) * size; e++) {
      float key = keys[e];
      if (key > first) { second = first; first = key; }
      else if (key > second) second = key;
    }
    groups[i] = packed(a.two_best && size > 1 ? first + second : first, group);
  }
  for (u32 n = 0; n < a.groups_kept; n++) {
    u32 first = take_best(groups) * size;
#pragma unroll
    for (int i = 0; i < OF_LANE; i++) kept |= (u32)(lane + 32 * i - first < size) << i;
  }
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) open[i] = kept >> i & 1 ? open[i] : 0;
}

KERNEL(route_choose, ChooseArgs, 128, 1) {
  SHARED_ARRAY(float, room, 4 * EXPERTS_MAX);
  u32 lane = threadIdx.x % 32, row = blockIdx.x * 4 + threadIdx.x / 32;
  float* mine = room + threadIdx.x / 32 * EXPERTS_MAX;
  if (row >= a.rows) return;
  u32* chosen = at<u32>(a.chosen) + (u64)row * a.top_k;
  float* weights = at<float>(a.weights) + (u64)row * a.top_k;
  if (row >= *at<const u32>(a.count)) {
    if (lane < a.top_k) { chosen[lane] = NONE; weights[lane] = 0.0f; }
    return;
  }
  const float* correction = at<const float>(a.correction);
  float x[OF_LANE];
  u64 keys[OF_LANE];
  scores(a, row, lane, x);
  bool broken = false;
#pragma unroll
  for (int i = 0; i < OF_LANE; i++) {
    u32 e = lane + 32 * i;
    keys[i] = 0;
    if (e >= a.experts) continue;
    float key = a.correction ? x[i] + correction[e] : x[i];
    broken |= x[i] != x[i] || key != key;
    keys[i] = packed(key, e);
    mine[e] = key;
  }
  __syncwarp();
  if (a.groups) keep_groups(a, lane, mine, keys);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < OF_LANE; i++)
    if (lane + 32 * i < a.experts) mine[lane + 32 * i] = x[i];
  __syncwarp();
  // Lane k keeps the choice k.
  u32 choice = NONE;
  for (u32 k = 0; k < a.top_k; k++) {
    u32 best = take_best(keys);
    choice = lane == k ? best : choice;
  }
  float weight = choice < a.experts ? mine[choice] : 0.0f;
  float sum = a.normalise ? warp_sum(weight) + 1e-20f : 1.0f;
  broken = __any_sync(FULL, broken);
  if (lane >= a.top_k) return;
  chosen[lane] = choice;
  weights[lane] = broken ? as_float(0x7fc00000u) : weight / sum * a.scale;
}

// Sum of x over the threads before this one. `room` is shared, 32 entries.
DI u32 sum_before(u32 x, u32* room) {
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = x;
#pragma unroll
  for (u32 o = 1; o < 32; o *= 2) {
    u32 other = __shfl_up_sync(FULL, sum, o);
    sum += lane >= o ? other : 0;
  }
  if (lane == 31) room[warp] = sum;
  __syncthreads();
  u32 before = 0;
  for (u32 i = 0; i < warp; i++) before += room[i];
  __syncthreads();
  return before + sum - x;
}

// 32 warps; warp w has the choices [w * share, (w + 1) * share). Thread e sums up expert e.
KERNEL(route_sort, SortArgs, 1024, 1) {
  SHARED_BYTES(bytes);
  SHARED_ARRAY(u32, room, 32);
  u32* counts = reinterpret_cast<u32*>(bytes);  // [32][experts]: of a warp's choices, then its next place
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 all = *at<const u32>(a.count) * a.top_k;
  u32 share = (all + 1023) / 1024 * 32, from = min(warp * share, all), to = min(from + share, all);
  const u32* chosen = at<const u32>(a.chosen);
  u32* mine = counts + warp * a.experts;
  for (u32 e = lane; e < a.experts; e += 32) mine[e] = 0;
  __syncwarp();
  for (u32 i = from + lane; i < to; i += 32) atomicAdd(&mine[chosen[i]], 1u);
  __syncthreads();

  u32 e = threadIdx.x, total = 0;
  if (e < a.experts)
    for (u32 w = 0; w < 32; w++) total += counts[w * a.experts + e];
  u32 start = sum_before(total, room);
  u32 tiles = (total + a.tile - 1) / a.tile, tile = sum_before(tiles, room);
  if (e < a.experts) {
    u32 next = start;
    for (u32 w = 0; w < 32; w++) {
      u32 count = counts[w * a.experts + e];
      counts[w * a.experts + e] = next;
      next += count;
    }
  }
  for (u32 i = 0; i < tiles; i++)
    at<U4>(a.tiles)[tile + i] = U4{e, start + i * a.tile, min(total - i * a.tile, a.tile), 0};
  if (e == 1023) *at<u32>(a.number) = tile + tiles;
  __syncthreads();

  u32* places = at<u32>(a.places);
  u32* sources = at<u32>(a.sources);
  for (u32 base = from; base < to; base += 32) {
    u32 i = base + lane;
    u32 expert = i < to ? chosen[i] : NONE;
    u32 alike = __match_any_sync(FULL, expert);
    u32 place = i < to ? mine[expert] + __popc(alike & ((1u << lane) - 1)) : 0;
    __syncwarp();
    if (i < to) {
      places[i] = place;
      sources[place] = i / a.top_k;
      // The last of those alike moves the next place on.
      if (alike >> lane == 1) mine[expert] = place + 1;
    }
    __syncwarp();
  }
  for (u32 i = all + threadIdx.x; i < a.rows * a.top_k; i += 1024) places[i] = NONE;
}
