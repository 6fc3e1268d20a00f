// Attention in f32 for whatever the tensor-core kernels do not take: any head size and element,
// values inside of keys (latent attention), f32 activations. One position a piece of work.
//
// attention_plain_H   a block is one position and up to H = 1, 4 or 16 heads of one key/value
//                     head, so that a key is read once for all of them
//
// Tiles of 32 positions: each warp takes four keys, a lane four elements of every 128, and the
// lanes' parts of the 4 x H products are folded by shuffles; then a warp a head for the weights;
// then threads over four elements of a value each, in groups that share the positions out.
#include "attention.cuh"

#define KEYS 32  // positions of a tile

// Sums of N values over the lanes that differ in bits O and below, shared out among these lanes:
// each is left with N / (2 O) of them, or one. Returns the index of its first.
template <int N, int O> DI u32 fold(float* v) {
  u32 lane = threadIdx.x % 32, first = 0;
  if constexpr (N > 1) {
    bool upper = lane & O;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
      float mine = upper ? v[i + N / 2] : v[i], theirs = upper ? v[i] : v[i + N / 2];
      v[i] = mine + __shfl_xor_sync(FULL, theirs, O);
    }
    first = upper ? N / 2 : 0;
    if constexpr (O > 1) first += fold<N / 2, O / 2>(v);
  } else {
    v[0] += __shfl_xor_sync(FULL, v[0], O);
    if constexpr (O > 1) fold<1, O / 2>(v);
  }
  return first;
}

// Those of one position.
template <int H> struct alignas(H % 4 ? 4 : 16) Weights { float of[H]; };

template <int H> struct Room {
  float scores[H * KEYS];   // [H][KEYS]
  float weights[KEYS * H];  // [KEYS][H]
  float best[H], mass[H], shrink[H];
};

// Scores of four keys of the tile, by a warp. Queries are f32 [H][stride] in shared memory.
template <int H>
DI void score_keys(const AttentionArgs& a, const Item& item, u32 kv_head, u32 base, u32 count, const float* q, u32 stride, Room<H>& room) {
  u32 lane = threadIdx.x % 32, first = threadIdx.x / 32 * 4;
  if (first >= count) return;
  const u32* table = table_of(a.cache, item.slot);
  u64 key[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    u32 position = base + min(first + k, count - 1);
    key[k] = key_at(a.cache, table[position / PAGE], kv_head, position);
  }
  float sums[4 * H];
#pragma unroll
  for (int i = 0; i < 4 * H; i++) sums[i] = 0;
  for (u32 i = 4 * lane; i < stride; i += 128) {
    F4 x[4];
#pragma unroll
    for (int k = 0; k < 4; k++) x[k] = cached4(key[k], a.cache.element, i, a.cache.head_dim);
#pragma unroll
    for (int h = 0; h < H; h++) {
      F4 y = *reinterpret_cast<const F4*>(q + h * stride + i);
#pragma unroll
      for (int k = 0; k < 4; k++)
        sums[h * 4 + k] = fmaf(x[k].x, y.x, fmaf(x[k].y, y.y, fmaf(x[k].z, y.z, fmaf(x[k].w, y.w, sums[h * 4 + k]))));
    }
  }
  u32 at_ = fold<4 * H, 16>(sums);
  constexpr int LEFT = 4 * H > 32 ? 4 * H / 32 : 1;
#pragma unroll
  for (int i = 0; i < LEFT; i++) {
    u32 h = (at_ + i) / 4, k = first + (at_ + i) % 4;
    room.scores[h * KEYS + k] = score_of(a, sums[i]);
  }
}

// Weights of the tile's positions and the running state of each head, a warp a head.
template <int H> DI void weigh(u32 count, Room<H>& room) {
  u32 lane = threadIdx.x % 32;
  for (u32 h = threadIdx.x / 32; h < H; h += 8) {
    float score = lane < count ? room.scores[h * KEYS + lane] : NEVER;
    float old = room.best[h], best = max(old, warp_max(score));
    // A NaN among the scores reaches the output: max drops it, the weight does not.
    float weight = lane < count ? exp2_fast(score - best) : 0.0f;
    float mass = warp_sum(weight), shrink = exp2_fast(old - best);
    room.weights[lane * H + h] = weight;
    if (lane == 0) {
      room.best[h] = best;
      room.mass[h] = fmaf(room.mass[h], shrink, mass);
      room.shrink[h] = shrink;
    }
  }
}

// Joins the groups' sums in the first group, halving their number through shared memory
// [groups / 2][H][4 lanes].
template <int H> DI void join_groups(float (&sums)[H][4], u32 group, u32 groups, u32 lane, u32 lanes, float* room) {
  for (u32 n = groups; n > 1;) {
    u32 half = (n + 1) / 2;
    __syncthreads();
    if (group >= half && group < n) {
#pragma unroll
      for (int h = 0; h < H; h++)
        reinterpret_cast<F4*>(room)[((group - half) * H + h) * lanes + lane] = F4{sums[h][0], sums[h][1], sums[h][2], sums[h][3]};
    }
    __syncthreads();
    if (group < n - half) {
#pragma unroll
      for (int h = 0; h < H; h++) {
        F4 other = reinterpret_cast<const F4*>(room)[(group * H + h) * lanes + lane];
        sums[h][0] += other.x, sums[h][1] += other.y, sums[h][2] += other.z, sums[h][3] += other.w;
      }
    }
    n = half;
  }
}

template <int H> DI void plain(const AttentionArgs& a, Room<H>& room, float* q) {
  if (blockIdx.x >= *at<const u32>(a.count)) return;
  const Item item = at<const Item>(a.items)[blockIdx.x];
  const Heads heads = heads_of(a);
  u32 dim = a.cache.head_dim, stride = (dim + 3) / 4 * 4, t = threadIdx.x;
  for (u32 i = t; i < H * stride; i += 256) {
    u32 h = i / stride, d = i % stride;
    q[i] = h < heads.count && d < dim ? load(a.q, item.row, (heads.first + h) * dim + d) : 0.0f;
  }
  if (t < H) room.best[t] = NEVER, room.mass[t] = 0;
  u32 lanes = (a.value_dim + 3) / 4, groups = min(256 / lanes, (u32)KEYS);
  u32 group = t / lanes, lane = t % lanes;
  float sums[H][4];
#pragma unroll
  for (int h = 0; h < H; h++) sums[h][0] = sums[h][1] = sums[h][2] = sums[h][3] = 0;
  const u32* table = table_of(a.cache, item.slot);
  __syncthreads();
  for (u32 base = item.from; base < item.to; base += KEYS) {
    u32 count = min((u32)KEYS, item.to - base);
    score_keys<H>(a, item, heads.kv_head, base, count, q, stride, room);
    __syncthreads();
    weigh<H>(count, room);
    __syncthreads();
    if (group < groups) {
#pragma unroll
      for (int h = 0; h < H; h++) {
        float shrink = room.shrink[h];
        sums[h][0] *= shrink, sums[h][1] *= shrink, sums[h][2] *= shrink, sums[h][3] *= shrink;
      }
      for (u32 j = group; j < count; j += groups) {
        u32 position = base + j;
        u64 value = key_at(a.cache, table[position / PAGE], heads.kv_head, position) + a.cache.value_bytes;
        F4 x = cached4(value, a.cache.element, 4 * lane, dim);
        const Weights<H> weights = *reinterpret_cast<const Weights<H>*>(room.weights + j * H);
#pragma unroll
        for (int h = 0; h < H; h++) {
          float w = weights.of[h];
          sums[h][0] = fmaf(w, x.x, sums[h][0]), sums[h][1] = fmaf(w, x.y, sums[h][1]);
          sums[h][2] = fmaf(w, x.z, sums[h][2]), sums[h][3] = fmaf(w, x.w, sums[h][3]);
        }
      }
    }
    __syncthreads();
  }
  join_groups<H>(sums, group, groups, lane, lanes, q);
  if (item.part != NO_PART && t < heads.count)
    at<F2>(a.states)[(u64)item.part * a.heads + heads.first + t] = F2{room.best[t], room.mass[t]};
  if (group != 0) return;
#pragma unroll
  for (int h = 0; h < H; h++) {
    if (h >= heads.count) break;
    u32 head = heads.first + h;
    float share = item.part == NO_PART ? share_of(a, head, room.best[h], room.mass[h]) : 1.0f;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      u32 d = 4 * lane + k;
      if (d >= a.value_dim) break;
      if (item.part == NO_PART) store(a.out, item.row, head * a.value_dim + d, sums[h][k] * share);
      else at<float>(a.parts)[((u64)item.part * a.heads + head) * a.value_dim + d] = sums[h][k];
    }
  }
}

KERNEL(attention_plain_1, AttentionArgs, 256, 2) {
  SHARED_BYTES(q);
  SHARED_ARRAY(Room<1>, room, 1);
  plain<1>(a, room[0], reinterpret_cast<float*>(q));
}
KERNEL(attention_plain_4, AttentionArgs, 256, 2) {
  SHARED_BYTES(q);
  SHARED_ARRAY(Room<4>, room, 1);
  plain<4>(a, room[0], reinterpret_cast<float*>(q));
}
KERNEL(attention_plain_16, AttentionArgs, 256, 1) {
  SHARED_BYTES(q);
  SHARED_ARRAY(Room<16>, room, 1);
  plain<16>(a, room[0], reinterpret_cast<float*>(q));
}
