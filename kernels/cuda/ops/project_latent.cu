// Latent attention: a row's compressed key into the cache, and the rotated part of its queries.
//
// Block (row, 0) norms the latent, turns the rest and stores the key; block (row, 1 + i) turns the
// queries of heads 16 i to 16 i + 16. Bound by memory.
#include "cache.cuh"

#define HEADS 16

struct LatentArgs {
  Tensor q;       // [rows, heads * (plain + rotated)]
  Tensor kv;      // [rows, latent + rotated]
  Tensor out;     // [rows, heads * (latent + rotated)]: the last `rotated` of each head are written
  Cache cache;    // of one head of latent + rotated elements
  u64 weight;     // f32 [latent]
  u64 bias;       // f32 [latent] or 0
  u64 table;      // f32 [rows, rotated]
  u64 positions;  // u32 [rows]
  u64 slots;      // u32 [rows]
  float eps;
  u32 centered;
  u32 heads;
  u32 plain;
  u32 latent;
  u32 rotated;
  u32 interleaved;
  u32 pad;
};

// Norms the latent in shared memory.
DI void norm_latent(const LatentArgs& a, float* key, float* sums) {
  float mean = 0;
  if (a.centered) {
    float sum = 0;
    for (u32 i = threadIdx.x; i < a.latent; i += 128) sum += key[i];
    mean = block_sum(sum, sums) / (float)a.latent;
  }
  float squares = 0;
  for (u32 i = threadIdx.x; i < a.latent; i += 128) {
    float v = key[i] - mean;
    squares = fmaf(v, v, squares);
  }
  float inverse = 1.0f / sqrtf(block_sum(squares, sums) / (float)a.latent + a.eps);
  const float* weight = at<const float>(a.weight);
  const float* bias = at<const float>(a.bias);
  for (u32 i = threadIdx.x; i < a.latent; i += 128) key[i] = (key[i] - mean) * inverse * weight[i] + (a.bias ? bias[i] : 0.0f);
  __syncthreads();
}

KERNEL(project_latent, LatentArgs, 128, 4) {
  SHARED_ARRAY(float, x, HEADS * HEAD_DIM_MAX);
  SHARED_ARRAY(float, sums, 32);
  u32 row = blockIdx.x, pairs = a.rotated / 2, size = a.latent + a.rotated;
  u32 slot = at<const u32>(a.slots)[row];
  if (slot == NO_SLOT) return;
  const float* table = at<const float>(a.table) + (u64)row * a.rotated;
  if (blockIdx.y == 0) {
    u32 position = at<const u32>(a.positions)[row];
    u32 page = table_of(a.cache, slot)[position / PAGE];
    for (u32 i = threadIdx.x; i < size; i += 128) x[i] = load(a.kv, row, i);
    __syncthreads();
    norm_latent(a, x, sums);
    u64 key = key_at(a.cache, page, 0, position);
    if (a.latent % 8 || a.rotated % 8) {
      for (u32 i = threadIdx.x; i < a.latent; i += 128) keep(key, a.cache.element, i, x[i]);
      for (u32 i = threadIdx.x; i < a.rotated; i += 128)
        keep(key, a.cache.element, a.latent + i, turned(x + a.latent, table, i, pairs, a.interleaved));
      return;
    }
    for (u32 i = 8 * threadIdx.x; i < size; i += 1024) {
      float v[8];
#pragma unroll
      for (int k = 0; k < 8; k++)
        v[k] = i < a.latent ? x[i + k] : turned(x + a.latent, table, i + k - a.latent, pairs, a.interleaved);
      keep8(key, a.cache.element, i, v);
    }
    return;
  }
  u32 first = (blockIdx.y - 1) * HEADS, heads = min((u32)HEADS, a.heads - first);
  for (u32 i = threadIdx.x; i < heads * a.rotated; i += 128) {
    u32 head = first + i / a.rotated;
    x[i] = load(a.q, row, head * (a.plain + a.rotated) + a.plain + i % a.rotated);
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < heads * a.rotated; i += 128) {
    u32 head = i / a.rotated, element = i % a.rotated;
    store(a.out, row, (first + head) * size + a.latent + element,
          turned(x + head * a.rotated, table, element, pairs, a.interleaved));
  }
}
