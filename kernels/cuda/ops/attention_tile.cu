// Attention of many positions (prefill) on tensor cores: tiles of the cache go through shared
// memory.
//
// attention_tile_T_C_D   T: operands bf16, f16; C: elements of the cache, T or 8-bit; D: head size
//
// A block is one piece of work and up to 64 heads of one key/value head; its packed queries are 64
// or 128 rows, 16 or 32 a warp. Tiles of 32 or 64 positions are copied in the background into one of
// two buffers while the other is multiplied; rows of shared memory are 16 bytes longer than they
// need to be, so that the eight rows of an ldmatrix lie in different banks. Scores become weights
// in registers and are operands of the second product as they lie. 32 rows a warp halve what is
// read from shared memory; larger heads have no registers for it. 8-bit tiles are widened into a
// third buffer.
#include "attention.cuh"

// What a variant is: 16 * FRAGS rows a warp, tiles of N positions. Twin: `Tile` in
// src/ops/attention.rs.
template <class T, class C, int D, int FRAGS, int N> struct Tile {
  static constexpr int ROWS = 64 * FRAGS;
  static constexpr bool NARROW = sizeof(C) == 1;
  static constexpr int STRIDE = 2 * (D + 8);              // bytes of a row of operands
  static constexpr int HALF = N * STRIDE;                 // bytes of a tile's keys as operands
  static constexpr int RAW = N * D * (int)sizeof(C);      // bytes of a tile's keys as they come, 8-bit
  static constexpr int STAGE = NARROW ? 2 * RAW : 2 * HALF;
  static constexpr int STAGES = NARROW ? 2 * HALF : 0;    // where the two buffers begin
  static constexpr int QUERIES = STAGES + 2 * STAGE;      // where the queries begin
  static constexpr int BYTES = QUERIES + ROWS * STRIDE;

  // A warp's state.
  float sums[FRAGS][D / 8][4];  // rows g and g + 8, columns 2 t and 2 t + 1 of each fragment
  float best[FRAGS][2], mass[FRAGS][2];
  u32 from[FRAGS][2], to[FRAGS][2];  // positions that rows see

  // Copies positions from `base` on into a buffer, in the background. Zeros stand for positions
  // that nobody sees: the cache may hold anything there.
  static DI void fetch(const AttentionArgs& a, const Item& item, u64 keys, u32 base, u8* stage) {
    constexpr int ROW = D * (int)sizeof(C), CHUNKS = ROW / 16, PITCH = NARROW ? ROW : STRIDE;
    const u32* table = table_of(a.cache, item.slot);
#pragma unroll
    for (int i = 0; i < (N * CHUNKS + 127) / 128; i++) {
      int at_ = threadIdx.x + 128 * i, row = at_ / CHUNKS, chunk = at_ % CHUNKS;
      if (N * CHUNKS % 128 && at_ >= N * CHUNKS) break;
      u32 position = base + row, real = min(max(position, item.from), item.to - 1);
      u64 key = keys + table[real / PAGE] * a.cache.page_bytes + real % PAGE * ROW + 16 * chunk;
      u8* to = stage + row * PITCH + 16 * chunk;
      copy_async16_or_zero(to, at<const u8>(key), real == position);
      copy_async16_or_zero(to + (NARROW ? RAW : HALF), at<const u8>(key + a.cache.value_bytes), real == position);
    }
  }

  // Widens a buffer of 8-bit floats.
  static DI void widen_tile(const u8* stage, u8* to) {
    for (int i = threadIdx.x; i < 2 * N * D / 8; i += 128) {
      int row = i / (D / 8), chunk = i % (D / 8);
      U2 v = *reinterpret_cast<const U2*>(stage + row * D + 8 * chunk);
      *reinterpret_cast<U4*>(to + row * STRIDE + 16 * chunk) =
          U4{widen(T{}, permute(v.x, 0, 0x1404)), widen(T{}, permute(v.x, 0, 0x3424)), widen(T{}, permute(v.y, 0, 0x1404)),
             widen(T{}, permute(v.y, 0, 0x3424))};
    }
  }

  // Queries into shared memory, zeros where there are none.
  static DI void stage_queries(const AttentionArgs& a, const Item& item, const Heads& heads, u8* to) {
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += 128) {
      u32 r = i / (D / 8), chunk = i % (D / 8);
      U4 v = {0, 0, 0, 0};
      if (r < item.len * heads.count) {
        u64 row = (u64)(item.row + r / heads.count) * a.q.width + (heads.first + r % heads.count) * D;
        v = at<const U4>(a.q.address + 2 * row)[chunk];
      }
      *reinterpret_cast<U4*>(to + r * STRIDE + 16 * chunk) = v;
    }
  }

  DI void begin(const AttentionArgs& a, const Item& item, const Heads& heads) {
    u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int f = 0; f < FRAGS; f++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        u32 r = (warp * FRAGS + f) * 16 + g + 8 * h;
        Seen seen = seen_by(a, item, r / heads.count);
        from[f][h] = seen.from, to[f][h] = r < item.len * heads.count ? seen.to : 0;
        best[f][h] = NEVER, mass[f][h] = 0;
      }
#pragma unroll
      for (int j = 0; j < D / 8; j++) sums[f][j][0] = sums[f][j][1] = sums[f][j][2] = sums[f][j][3] = 0;
    }
  }

  // Scores of a tile become weights; `masked`: some row does not see all of it.
  DI void weigh(const AttentionArgs& a, float (&s)[FRAGS][N / 8][4], u32 base, bool masked) {
    u32 t = threadIdx.x % 4;
    float scale = a.cap == 0.0f ? a.scale : 1.0f, shrink[FRAGS][2];
    if (a.cap != 0.0f) {
#pragma unroll
      for (int i = 0; i < FRAGS * N / 2; i++) {
        float& x = s[i / (N / 2)][i / 4 % (N / 8)][i % 4];
        x = capped(a, x);
      }
    }
    bool changed = false;
#pragma unroll
    for (int f = 0; f < FRAGS; f++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float greatest = best[f][h];
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
          float& x = s[f][i / 2][2 * h + i % 2];
          if (masked) {
            u32 position = base + i / 2 * 8 + 2 * t + i % 2;
            x = (position >= from[f][h]) & (position < to[f][h]) ? x : NEVER;
          }
          greatest = max(greatest, x);
        }
        greatest = max(greatest, __shfl_xor_sync(FULL, greatest, 1));
        greatest = max(greatest, __shfl_xor_sync(FULL, greatest, 2));
        changed |= greatest != best[f][h];
        // Where nothing was seen yet, all weights are to be 0.
        float least = greatest == NEVER ? 0.0f : greatest * scale, sum = 0;
        shrink[f][h] = exp2_fast(fmaf(best[f][h], scale, -least));
        best[f][h] = greatest;
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
          float& x = s[f][i / 2][2 * h + i % 2];
          x = exp2_fast(fmaf(x, scale, -least));
          sum += x;
        }
        mass[f][h] = fmaf(mass[f][h], shrink[f][h], sum);
      }
    }
    if (!__any_sync(FULL, changed)) return;
#pragma unroll
    for (int f = 0; f < FRAGS; f++) {
#pragma unroll
      for (int j = 0; j < D / 8; j++) {
#pragma unroll
        for (int k = 0; k < 4; k++) sums[f][j][k] *= shrink[f][k / 2];
      }
    }
  }

  // One tile: keys, then values, lie at `tile` as operands.
  DI void step(const AttentionArgs& a, const u8* queries, const u8* tile, u32 base, bool masked) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane % 8, m = lane / 8;
    float s[FRAGS][N / 8][4];
#pragma unroll
    for (int i = 0; i < FRAGS * N / 2; i++) s[i / (N / 2)][i / 4 % (N / 8)][i % 4] = 0;
    const u8* x_row = queries + (warp * FRAGS * 16 + m % 2 * 8 + r) * STRIDE + m / 2 * 16;
    const u8* key_row = tile + (m / 2 * 8 + r) * STRIDE + m % 2 * 16;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      u32 x[FRAGS][4];
#pragma unroll
      for (int f = 0; f < FRAGS; f++) load_matrix4(x[f], x_row + f * 16 * STRIDE + 32 * k);
#pragma unroll
      for (int n = 0; n < N / 16; n++) {
        u32 y[4];
        load_matrix4(y, key_row + n * 16 * STRIDE + 32 * k);
#pragma unroll
        for (int f = 0; f < FRAGS; f++) {
          mma(T{}, s[f][2 * n], x[f], y[0], y[1]);
          mma(T{}, s[f][2 * n + 1], x[f], y[2], y[3]);
        }
      }
    }
    weigh(a, s, base, masked);
    const u8* value_row = tile + HALF + (m % 2 * 8 + r) * STRIDE + m / 2 * 16;
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
      u32 p[FRAGS][4];
#pragma unroll
      for (int f = 0; f < FRAGS; f++) {
#pragma unroll
        for (int i = 0; i < 4; i++) p[f][i] = pack<T>(s[f][2 * k + i / 2][i % 2 * 2], s[f][2 * k + i / 2][i % 2 * 2 + 1]);
      }
#pragma unroll
      for (int j = 0; j < D / 16; j++) {
        u32 y[4];
        load_matrix4_transposed(y, value_row + k * 16 * STRIDE + 32 * j);
#pragma unroll
        for (int f = 0; f < FRAGS; f++) {
          mma(T{}, sums[f][2 * j], p[f], y[0], y[1]);
          mma(T{}, sums[f][2 * j + 1], p[f], y[2], y[3]);
        }
      }
    }
  }

  DI void finish(const AttentionArgs& a, const Item& item, const Heads& heads) {
    u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float scale = a.cap == 0.0f ? a.scale : 1.0f;
#pragma unroll
    for (int f = 0; f < FRAGS; f++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float total = mass[f][h];
        total += __shfl_xor_sync(FULL, total, 1);
        total += __shfl_xor_sync(FULL, total, 2);
        u32 r = (warp * FRAGS + f) * 16 + g + 8 * h;
        if (r >= item.len * heads.count) continue;
        u32 row = item.row + r / heads.count, head = heads.first + r % heads.count;
        float share = share_of(a, head, best[f][h] * scale, total);
#pragma unroll
        for (int j = 0; j < D / 8; j++)
          store2(a.out, row, head * D + 8 * j + 2 * t, sums[f][j][2 * h] * share, sums[f][j][2 * h + 1] * share);
      }
    }
  }

  static DI void run(const AttentionArgs& a, u8* room) {
    if (blockIdx.x >= *at<const u32>(a.count)) return;
    const Item item = at<const Item>(a.items)[blockIdx.x];
    const Heads heads = heads_of(a);
    u64 keys = a.cache.keys + (u64)heads.kv_head * PAGE * D * sizeof(C);
    u32 base = item.from / PAGE * PAGE;
    fetch(a, item, keys, base, room + STAGES);
    copy_commit();
    stage_queries(a, item, heads, room + QUERIES);
    Tile tile;
    tile.begin(a, item, heads);
    // Positions that all rows see.
    u32 all_from = seen_by(a, item, item.len - 1).from, all_to = seen_by(a, item, 0).to;
    for (u32 i = 0; base < item.to; i++, base += N) {
      u8* stage = room + STAGES + i % 2 * STAGE;
      if (base + N < item.to) fetch(a, item, keys, base + N, room + STAGES + (i + 1) % 2 * STAGE);
      copy_commit();
      copy_wait<1>();
      __syncthreads();
      if constexpr (NARROW) {
        widen_tile(stage, room);
        __syncthreads();
        stage = room;
      }
      tile.step(a, room + QUERIES, stage, base, base < all_from || base + N > all_to);
      __syncthreads();
    }
    tile.finish(a, item, heads);
  }
};

KERNEL(attention_tile_bf16_64, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, bf16, 64, 2, 64>::run(a, room); }
KERNEL(attention_tile_bf16_80, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, bf16, 80, 2, 32>::run(a, room); }
KERNEL(attention_tile_bf16_96, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, bf16, 96, 2, 32>::run(a, room); }
KERNEL(attention_tile_bf16_128, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, bf16, 128, 2, 32>::run(a, room); }
KERNEL(attention_tile_bf16_192, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, bf16, 192, 1, 32>::run(a, room); }
KERNEL(attention_tile_bf16_256, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, bf16, 256, 1, 32>::run(a, room); }
KERNEL(attention_tile_bf16_f8_64, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, f8, 64, 2, 64>::run(a, room); }
KERNEL(attention_tile_bf16_f8_80, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, f8, 80, 2, 32>::run(a, room); }
KERNEL(attention_tile_bf16_f8_96, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, f8, 96, 2, 32>::run(a, room); }
KERNEL(attention_tile_bf16_f8_128, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, f8, 128, 2, 32>::run(a, room); }
KERNEL(attention_tile_bf16_f8_192, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, f8, 192, 1, 32>::run(a, room); }
KERNEL(attention_tile_bf16_f8_256, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<bf16, f8, 256, 1, 32>::run(a, room); }
KERNEL(attention_tile_f16_64, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f16, 64, 2, 64>::run(a, room); }
KERNEL(attention_tile_f16_80, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f16, 80, 2, 32>::run(a, room); }
KERNEL(attention_tile_f16_96, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f16, 96, 2, 32>::run(a, room); }
KERNEL(attention_tile_f16_128, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f16, 128, 2, 32>::run(a, room); }
KERNEL(attention_tile_f16_192, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f16, 192, 1, 32>::run(a, room); }
KERNEL(attention_tile_f16_256, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f16, 256, 1, 32>::run(a, room); }
KERNEL(attention_tile_f16_f8_64, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f8, 64, 2, 64>::run(a, room); }
KERNEL(attention_tile_f16_f8_80, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f8, 80, 2, 32>::run(a, room); }
KERNEL(attention_tile_f16_f8_96, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f8, 96, 2, 32>::run(a, room); }
KERNEL(attention_tile_f16_f8_128, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f8, 128, 2, 32>::run(a, room); }
KERNEL(attention_tile_f16_f8_192, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f8, 192, 1, 32>::run(a, room); }
KERNEL(attention_tile_f16_f8_256, AttentionArgs, 128, 2) { SHARED_BYTES(room); Tile<f16, f8, 256, 1, 32>::run(a, room); }
