// What the attention kernels share: their argument, pieces of work, and scores.
//
// A piece of work is some positions of a segment and a range of its slot's cache. Queries of one
// piece and one key/value head are packed into rows: row = position * heads + head. Scores are in
// units of log2, so that a weight is one ex2. Positions outside of [from, to) are never used,
// whatever the cache holds there.
#pragma once
#include "cache.cuh"

#define LOG2E 1.4426950408889634f
#define NO_PART 0xffffffffu
#define NEVER (-1e30f)  // a score below all others whose differences are still numbers

// Twin of `Item` in src/ops/attention/plan.rs.
struct alignas(16) Item {
  u32 row;    // first row of activations
  u32 len;    // positions, and rows
  u32 slot;
  u32 first;  // first position
  u32 from;   // positions of the cache that are seen
  u32 to;
  u32 part;   // first row of partial results, or NO_PART: the result is whole
  u32 pad;
};

struct AttentionArgs {
  Tensor q;     // [rows, at least heads * head_dim]
  Tensor out;   // [rows, heads * value_dim]
  Cache cache;
  u64 items;    // Item [*count]
  u64 count;    // u32
  u64 sinks;    // f32 [heads], or 0
  u64 parts;    // f32 [part rows][heads][value_dim]: sums of weighted values
  u64 states;   // F2 [part rows][heads]: greatest score, sum of weights relative to it
  float scale;  // makes products scores in units of log2; capped ones: arguments of the tanh
  float cap;    // what the tanh is multiplied with, or 0: scores are not capped
  u32 heads;
  u32 kv_heads;
  u32 value_dim;
  u32 causal;
  u32 window;   // positions; 0xffffffff: no window
  u32 chunk;    // heads of a block
};

// Which query heads a block works on, from blockIdx.y.
struct Heads {
  u32 kv_head;
  u32 first;
  u32 count;
};
DI Heads heads_of(const AttentionArgs& a) {
  u32 group = a.heads / a.kv_heads, chunks = (group + a.chunk - 1) / a.chunk;
  u32 kv_head = blockIdx.y / chunks, from = blockIdx.y % chunks * a.chunk;
  return Heads{kv_head, kv_head * group + from, min(a.chunk, group - from)};
}

// A finished score in units of log2.
DI float score_of(const AttentionArgs& a, float product) {
  if (a.cap == 0.0f) return product * a.scale;
  return a.cap * tanhf(product * a.scale);
}

// As above of capped scores, for tensor cores: off by some 1e-7 of the cap.
DI float capped(const AttentionArgs& a, float product) {
  float e = exp2_fast(2.0f * LOG2E * product * a.scale);
  return a.cap * (1.0f - __fdividef(2.0f, e + 1.0f));
}

// Positions of its range that the i-th position of a piece sees.
struct Seen { u32 from, to; };
DI Seen seen_by(const AttentionArgs& a, const Item& item, u32 i) {
  u32 position = item.first + i;
  u32 least = a.window > position ? 0 : position + 1 - a.window;
  u32 most = a.causal ? position + 1 : a.window == 0xffffffffu ? item.to : position + a.window;
  return Seen{max(item.from, least), min(item.to, most)};
}

// Two 8-bit floats, in the upper bytes of the halves of x, as operands. NaN becomes 480: only a
// cache that was given one holds one.
DI u32 widen(bf16, u32 x) { return fma_bf16x2((x & 0x80008000u) | (x & 0x7f007f00u) >> 4, 0x7b807b80u, 0); }
DI u32 widen(f16, u32 x) { return fma_f16x2((x & 0x80008000u) | (x & 0x7f007f00u) >> 1, 0x5c005c00u, 0); }

// Two elements from `column`, an even number, of a row of even width.
DI void store2(const Tensor& x, u32 row, u32 column, float v, float w) {
  u64 i = (u64)row * x.width + column;
  if (x.kind == KIND_F32) *at<F2>(x.address + 4 * i) = F2{v, w};
  else *at<u32>(x.address + 2 * i) = x.kind == KIND_BF16 ? pack_bf16(v, w) : pack_f16(v, w);
}

// What the sum of values is multiplied with, once all positions were seen.
DI float share_of(const AttentionArgs& a, u32 head, float best, float mass) {
  if (!a.sinks) return 1.0f / mass;
  float sink = at<const float>(a.sinks)[head] * LOG2E;
  float greater = max(best, sink), old = exp2_fast(best - greater);
  return old / fmaf(mass, old, exp2_fast(sink - greater));
}
