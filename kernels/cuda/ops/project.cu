// From fused projection rows [q heads | k heads | v heads] to rotated queries and cache entries.
//
// A warp a head, eight heads a block: a head goes through shared memory as f32, is normalised and
// turned there, and leaves as 16-byte stores. With a norm over all heads together a block does the
// whole row, because it reads all queries before it overwrites one. Bound by memory.
#include "cache.cuh"

enum Reach : u32 { REACH_NONE = 0, REACH_EACH = 1, REACH_WHOLE = 2 };

struct HeadNorm {
  u64 weight;    // f32 [head_dim] or [heads * head_dim]
  u64 bias;      // alike, or 0
  float eps;
  u32 reach;
  u32 stride;    // from a head's weights to the next head's; 0: they share
  u32 centered;  // 1: layer norm, 0: RMS norm
};

struct ProjectArgs {
  Tensor qkv;     // [rows, (heads + 2 kv_heads) * head_dim]; queries are overwritten
  Cache cache;
  HeadNorm q;
  HeadNorm k;
  u64 table;      // f32 [rows, rotated], or 0
  u64 positions;  // u32 [rows]
  u64 slots;      // u32 [rows]
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  u32 rotated;
  u32 interleaved;
  u32 pad;
};

// Mean and inverse deviation of `n` elements of a row, by the block.
DI F2 whole(const Tensor& x, u32 row, u32 from, u32 n, const HeadNorm& how, float* room) {
  float mean = 0;
  if (how.centered) {
    float sum = 0;
    for (u32 i = threadIdx.x; i < n; i += 256) sum += load(x, row, from + i);
    mean = block_sum(sum, room) / (float)n;
  }
  float squares = 0;
  for (u32 i = threadIdx.x; i < n; i += 256) {
    float v = load(x, row, from + i) - mean;
    squares = fmaf(v, v, squares);
  }
  return F2{mean, 1.0f / sqrtf(block_sum(squares, room) / (float)n + how.eps)};
}

// As above, of a head in shared memory, by the warp.
DI F2 each(const float* x, u32 n, const HeadNorm& how) {
  u32 lane = threadIdx.x % 32;
  float mean = 0;
  if (how.centered) {
    float sum = 0;
    for (u32 i = lane; i < n; i += 32) sum += x[i];
    mean = warp_sum(sum) / (float)n;
  }
  float squares = 0;
  for (u32 i = lane; i < n; i += 32) {
    float v = x[i] - mean;
    squares = fmaf(v, v, squares);
  }
  return F2{mean, 1.0f / sqrtf(warp_sum(squares) / (float)n + how.eps)};
}

// A head of the row into shared memory.
DI void fetch(const ProjectArgs& a, u32 row, u32 head, float* x) {
  u32 lane = threadIdx.x % 32, column = head * a.head_dim;
  if (a.head_dim % 4 == 0) {
    for (u32 i = 4 * lane; i < a.head_dim; i += 128) *reinterpret_cast<F4*>(x + i) = load4(a.qkv, row, column + i);
  } else {
    for (u32 i = lane; i < a.head_dim; i += 32) x[i] = load(a.qkv, row, column + i);
  }
  __syncwarp();
}

DI void normalise(const ProjectArgs& a, const HeadNorm& how, u32 head, F2 of, float* x) {
  u32 lane = threadIdx.x % 32;
  const float* weight = at<const float>(how.weight) + (u64)head * how.stride;
  const float* bias = at<const float>(how.bias) + (u64)head * how.stride;
  for (u32 i = lane; i < a.head_dim; i += 32) x[i] = (x[i] - of.x) * of.y * weight[i] + (how.bias ? bias[i] : 0.0f);
  __syncwarp();
}

// A head out of shared memory, turned: to the cache where `kept` is its address, else back.
DI void leave(const ProjectArgs& a, u32 row, u32 head, const float* x, u32 pairs, u64 kept) {
  u32 lane = threadIdx.x % 32, column = head * a.head_dim;
  const float* table = at<const float>(a.table) + (u64)row * a.rotated;
  if (a.head_dim % 8 == 0) {
    for (u32 i = 8 * lane; i < a.head_dim; i += 256) {
      float v[8];
#pragma unroll
      for (int k = 0; k < 8; k++) v[k] = turned(x, table, i + k, pairs, a.interleaved);
      if (kept) keep8(kept, a.cache.element, i, v);
      else keep8(a.qkv.address + ((u64)row * a.qkv.width + column) * (a.qkv.kind == KIND_F32 ? 4 : 2), a.qkv.kind, i, v);
    }
  } else {
    for (u32 i = lane; i < a.head_dim; i += 32) {
      float v = turned(x, table, i, pairs, a.interleaved);
      if (kept) keep(kept, a.cache.element, i, v);
      else store(a.qkv, row, column + i, v);
    }
  }
}

KERNEL(project_rows, ProjectArgs, 256, 2) {
  SHARED_ARRAY(float, room, 8 * HEAD_DIM_MAX);
  SHARED_ARRAY(float, sums, 32);
  u32 row = blockIdx.x, warp = threadIdx.x / 32;
  u32 slot = at<const u32>(a.slots)[row];
  if (slot == NO_SLOT) return;
  u32 position = at<const u32>(a.positions)[row];
  u32 page = table_of(a.cache, slot)[position / PAGE];
  F2 q_whole = {0, 1}, k_whole = {0, 1};
  if (a.q.reach == REACH_WHOLE) q_whole = whole(a.qkv, row, 0, a.heads * a.head_dim, a.q, sums);
  if (a.k.reach == REACH_WHOLE) k_whole = whole(a.qkv, row, a.heads * a.head_dim, a.kv_heads * a.head_dim, a.k, sums);
  float* x = room + warp * HEAD_DIM_MAX;
  u32 keys = a.heads + a.kv_heads, all = keys + a.kv_heads;
  for (u32 head = blockIdx.y * 8 + warp; head < all; head += gridDim.y * 8) {
    fetch(a, row, head, x);
    u64 kept = 0;
    u32 pairs = a.rotated / 2;
    if (head < a.heads) {
      if (a.q.reach) normalise(a, a.q, head, a.q.reach == REACH_EACH ? each(x, a.head_dim, a.q) : q_whole, x);
    } else if (head < keys) {
      kept = key_at(a.cache, page, head - a.heads, position);
      if (a.k.reach) normalise(a, a.k, head - a.heads, a.k.reach == REACH_EACH ? each(x, a.head_dim, a.k) : k_whole, x);
    } else {
      kept = key_at(a.cache, page, head - keys, position) + a.cache.value_bytes;
      pairs = 0;
    }
    leave(a, row, head, x, pairs, kept);
    __syncwarp();
  }
}
