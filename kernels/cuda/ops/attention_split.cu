// Attention of few positions (decode) on tensor cores: the cache goes from memory to registers.
//
// attention_split_T_C_D   T: operands bf16, f16; C: elements of the cache, T or 8-bit; D: head size
//
// A block is one piece of work and up to 16 heads of one key/value head: its packed queries are the
// 16 rows of an mma. Four warps share the pages out; each keeps an online softmax of its own, which
// are joined at the end. While a page is multiplied the next one's keys are under way: this is
// bound by memory, and in registers there is room for what has to be in flight.
//
// Scores are sums over k, values sums over positions, and outputs are stored one by one: an order
// of the k, and of the outputs' columns, is free. Lane l = 4 g + t therefore reads 16 bytes of key
// g (of 8) at once, and of four positions' values 8 neighbouring dimensions.
#include "attention.cuh"

template <class C> constexpr int SIZE = sizeof(C);

// BYTES bytes at p into registers from r on.
template <int BYTES> DI void read(u32* r, u64 p) {
  if constexpr (BYTES == 16) {
    U4 v = load_once(at<const U4>(p));
    r[0] = v.x, r[1] = v.y, r[2] = v.z, r[3] = v.w;
  } else if constexpr (BYTES == 8) {
    U2 v = *at<const U2>(p);
    r[0] = v.x, r[1] = v.y;
  } else if constexpr (BYTES == 4) {
    r[0] = *at<const u32>(p);
  } else {
    r[0] = *at<const u16>(p);
  }
}

// Keys: a lane's elements of a row of D, in stretches of four lanes times 16 bytes; then a shorter
// one. LEFT: bytes of the row that are still to be read, from `done` on.
template <int LEFT> DI void read_key(u32* r, u64 row, u32 t) {
  if constexpr (LEFT > 0) {
    constexpr int EACH = LEFT >= 64 ? 16 : LEFT >= 32 ? 8 : 4;
    read<EACH>(r, row + EACH * t);
    read_key<LEFT - 4 * EACH>(r + EACH / 4, row + 4 * EACH, t);
  }
}
// The queries' elements that meet those: row `row` of D elements T, for a cache of C.
template <class C, int D, int DONE> DI void read_query(u32* r, u64 row, u32 t) {
  if constexpr (DONE < D) {
    constexpr int LEFT = (D - DONE) * SIZE<C>;
    constexpr int EACH = (LEFT >= 64 ? 16 : LEFT >= 32 ? 8 : 4) / SIZE<C>;  // elements
    constexpr int READ = EACH * 2 >= 16 ? 16 : EACH * 2;
#pragma unroll
    for (int i = 0; i < EACH * 2 / READ; i++) read<READ>(r + i * READ / 4, row + 2 * (DONE + EACH * t) + READ * i);
    read_query<C, D, DONE + 4 * EACH>(r + EACH / 2, row, t);
  }
}
// Elements 2 i and 2 i + 1 of a lane's key.
template <class T, class C> DI u32 key_pair(const u32* r, int i) {
  if constexpr (SIZE<C> == 2) return r[i];
  else return widen(T{}, permute(r[i / 2], 0, i % 2 ? 0x3424 : 0x1404));
}

// Values: stretches of 64 dimensions, of which a lane reads 8; then a shorter one. `row` is where
// the lane begins in the first stretch.
template <int D, int S> constexpr int WIDTH = D - 64 * S >= 64 ? 64 : D - 64 * S;
template <class C, int D, int S> DI void read_value(u32* r, u64 row, u32 g) {
  constexpr int EACH = WIDTH<D, S> / 8 * SIZE<C>, WHOLE = 8 * SIZE<C>;
  read<EACH>(r, EACH == WHOLE ? row + 64 * S * SIZE<C> : row + 64 * S * SIZE<C> - (WHOLE - EACH) * g);
}
// Dimension j of a stretch, of two positions.
template <class T, class C> DI u32 value_pair(const u32* a, const u32* b, int j) {
  if constexpr (SIZE<C> == 2) return permute(a[j / 2], b[j / 2], j % 2 ? 0x7632 : 0x5410);
  else return widen(T{}, permute(a[j / 4], b[j / 4], (4 + j % 4) << 12 | (j % 4) << 4));
}

// One warp's state: rows g and g + 8 of the queries.
template <int D> struct Rows {
  float sums[D / 8][4];  // stretch s: [8 s + j][2 h + c] is dimension 64 s + width / 8 * (2 t + c) + j of row g + 8 h
  float best[2], mass[2];
  u32 from[2], to[2];    // positions that they see
};

// Weighted values of a stretch.
template <class T, class C, int D, int S> DI void add_values(Rows<D>& rows, const u32 (&p)[4], const u32 (&v)[4][2 * SIZE<C>]) {
#pragma unroll
  for (int j = 0; j < WIDTH<D, S> / 8; j++)
    mma(T{}, rows.sums[8 * S + j], p, value_pair<T, C>(v[0], v[1], j), value_pair<T, C>(v[2], v[3], j));
}
template <class C, int D, int S> DI void read_stretch(u32 (&v)[4][2 * SIZE<C>], const u64 (&row)[4], u32 g) {
#pragma unroll
  for (int i = 0; i < 4; i++) read_value<C, D, S>(v[i], row[i], g);
}
template <class C, int D, int S = 0> DI void read_values(u32 (&v)[(D + 63) / 64][4][2 * SIZE<C>], const u64 (&row)[4], u32 g) {
  if constexpr (64 * S < D) {
    read_stretch<C, D, S>(v[S], row, g);
    read_values<C, D, S + 1>(v, row, g);
  }
}
template <class T, class C, int D, int S = 0>
DI void add_all_values(Rows<D>& rows, const u32 (&p)[4], const u32 (&v)[(D + 63) / 64][4][2 * SIZE<C>]) {
  if constexpr (64 * S < D) {
    add_values<T, C, D, S>(rows, p, v[S]);
    add_all_values<T, C, D, S + 1>(rows, p, v);
  }
}

// As above; a stretch is read while the one before is added.
template <class T, class C, int D, int S>
DI void add_in_passing(Rows<D>& rows, const u32 (&p)[4], u32 (&v)[2][4][2 * SIZE<C>], const u64 (&row)[4], u32 g) {
  if constexpr (64 * S + 64 < D) read_stretch<C, D, S + 1>(v[(S + 1) % 2], row, g);
  add_values<T, C, D, S>(rows, p, v[S % 2]);
  if constexpr (64 * S + 64 < D) add_in_passing<T, C, D, S + 1>(rows, p, v, row, g);
}

// Scores s[n][2 h + c] of positions base + 8 n + 2 t + c become weights; sums are brought to the
// new best score.
template <class T, int D> DI void weigh(const AttentionArgs& a, Rows<D>& rows, float (&s)[2][4], u32 base, u32 t, u32 (&p)[4]) {
  bool changed = false;
  float shrink[2], scale = a.scale;
  if (a.cap != 0.0f) {
    scale = 1.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) s[i / 4][i % 4] = capped(a, s[i / 4][i % 4]);
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float best = rows.best[h];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      u32 position = base + i / 2 * 8 + 2 * t + i % 2;
      float& x = s[i / 2][2 * h + i % 2];
      x = (position >= rows.from[h]) & (position < rows.to[h]) ? x * scale : NEVER;
      best = max(best, x);
    }
    best = max(best, __shfl_xor_sync(FULL, best, 1));
    best = max(best, __shfl_xor_sync(FULL, best, 2));
    changed |= best != rows.best[h];
    shrink[h] = exp2_fast(rows.best[h] - best);
    rows.best[h] = best;
    // Where nothing was seen yet, all weights are to be 0.
    float least = best == NEVER ? 0.0f : best;
#pragma unroll
    for (int i = 0; i < 4; i++) s[i / 2][2 * h + i % 2] = exp2_fast(s[i / 2][2 * h + i % 2] - least);
    rows.mass[h] = fmaf(rows.mass[h], shrink[h], s[0][2 * h] + s[0][2 * h + 1] + (s[1][2 * h] + s[1][2 * h + 1]));
  }
  p[0] = pack<T>(s[0][0], s[0][1]);
  p[1] = pack<T>(s[0][2], s[0][3]);
  p[2] = pack<T>(s[1][0], s[1][1]);
  p[3] = pack<T>(s[1][2], s[1][3]);
  if (!__any_sync(FULL, changed)) return;
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
#pragma unroll
    for (int k = 0; k < 4; k++) rows.sums[j][k] *= shrink[k / 2];
  }
}

// A lane's sums of a row, times `factor`, into a row of shared memory; or that row added to them.
template <int D, bool ADD, int S = 0> DI void exchange(Rows<D>& rows, int h, float factor, float* row, u32 t) {
  if constexpr (64 * S < D) {
    constexpr int EACH = WIDTH<D, S> / 8;
#pragma unroll
    for (int c = 0; c < 2; c++) {
#pragma unroll
      for (int j = 0; j < EACH; j += 2) {
        F2* to = reinterpret_cast<F2*>(row + 64 * S + EACH * (2 * t + c) + j);
        float &x = rows.sums[8 * S + j][2 * h + c], &y = rows.sums[8 * S + j + 1][2 * h + c];
        if constexpr (ADD) {
          F2 v = *to;
          x = fmaf(x, factor, v.x), y = fmaf(y, factor, v.y);
        } else {
          *to = F2{x * factor, y * factor};
        }
      }
    }
    exchange<D, ADD, S + 1>(rows, h, factor, row, t);
  }
}

template <int D> struct Shared {
  U4 queries[D / 16][32];  // operands of the mma, by step of k and lane
  float best[4][16], mass[4][16];
  float sums[2][16][D + 4];
};

// Joins the four warps and writes what they have.
template <int D> DI void finish(const AttentionArgs& a, const Item& item, const Heads& heads, Rows<D>& rows, Shared<D>& room) {
  u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  u32 used = item.len * heads.count;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    rows.mass[h] += __shfl_xor_sync(FULL, rows.mass[h], 1);
    rows.mass[h] += __shfl_xor_sync(FULL, rows.mass[h], 2);
    if (t == 0) room.best[warp][g + 8 * h] = rows.best[h], room.mass[warp][g + 8 * h] = rows.mass[h];
  }
  __syncthreads();
  float factor[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    u32 r = g + 8 * h;
    float best = max(max(room.best[0][r], room.best[1][r]), max(room.best[2][r], room.best[3][r]));
    factor[h] = exp2_fast(rows.best[h] - best);
  }
  // Warps 2 and 3 give to 0 and 1; the two sums that are left are added on the way out.
#pragma unroll
  for (int h = 0; h < 2; h++)
    if (warp >= 2 && g + 8 * h < used) exchange<D, false>(rows, h, factor[h], room.sums[warp - 2][g + 8 * h], t);
  __syncthreads();
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (warp < 2 && g + 8 * h < used) {
      exchange<D, true>(rows, h, factor[h], room.sums[warp][g + 8 * h], t);
      exchange<D, false>(rows, h, 1.0f, room.sums[warp][g + 8 * h], t);
    }
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < used * (D / 4); i += 128) {
    u32 r = i / (D / 4), d = i % (D / 4) * 4, position = r / heads.count, head = heads.first + r % heads.count;
    float best = NEVER, mass = 0;
#pragma unroll
    for (int w = 0; w < 4; w++) best = max(best, room.best[w][r]);
#pragma unroll
    for (int w = 0; w < 4; w++) mass = fmaf(room.mass[w][r], exp2_fast(room.best[w][r] - best), mass);
    F4 x = *reinterpret_cast<const F4*>(&room.sums[0][r][d]), y = *reinterpret_cast<const F4*>(&room.sums[1][r][d]);
    F4 sum = {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
    if (item.part == NO_PART) {
      float share = share_of(a, head, best, mass);
      store4(a.out, item.row + position, head * D + d, F4{sum.x * share, sum.y * share, sum.z * share, sum.w * share});
    } else {
      u64 row = (u64)(item.part + position) * a.heads + head;
      *at<F4>(a.parts + 4 * (row * D + d)) = sum;
      if (d == 0) at<F2>(a.states)[row] = F2{best, mass};
    }
  }
}

// Queries of the block's rows as operands, zeros where there are none.
template <class C, int D> DI void stage_queries(const AttentionArgs& a, const Item& item, const Heads& heads, Shared<D>& room) {
  u32 lane = threadIdx.x, g = lane / 4, t = lane % 4;
  if (lane >= 32) return;
  u32 q[2][D / 8];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    u32 r = g + 8 * h;
    if (r < item.len * heads.count) {
      u64 row = (u64)(item.row + r / heads.count) * a.q.width + (heads.first + r % heads.count) * D;
      read_query<C, D, 0>(q[h], a.q.address + 2 * row, t);
    } else {
#pragma unroll
      for (int i = 0; i < D / 8; i++) q[h][i] = 0;
    }
  }
#pragma unroll
  for (int i = 0; i < D / 16; i++) room.queries[i][lane] = U4{q[0][2 * i], q[1][2 * i], q[0][2 * i + 1], q[1][2 * i + 1]};
}

// Keys of a page that are in registers: all of their rows, or, of the longest rows, of which only
// a part fits, stretches of 64 bytes, one being read while another is multiplied.
template <class T, class C, int D> struct Keys {
  static constexpr int ROW = D * SIZE<C>, PIECE = ROW >= 512 ? 64 : ROW, PIECES = ROW / PIECE;
  u32 r[PIECES > 1 ? 2 : 1][2][PIECE / 16];

  // Piece i of a page whose row g is at `row`.
  DI void fetch(int i, u64 row, u32 t) {
#pragma unroll
    for (int n = 0; n < 2; n++) read_key<PIECE>(r[i % 2][n], row + 8 * n * ROW + i * PIECE, t);
  }
  // Adds the products of piece i.
  DI void multiply(int i, float (&s)[2][4], const U4 (*queries)[32]) const {
    constexpr int STEPS = PIECE / SIZE<C> / 16;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      U4 q = queries[i * STEPS + k][threadIdx.x % 32];
      const u32 x[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int n = 0; n < 2; n++) mma(T{}, s[n], x, key_pair<T, C>(r[i % 2][n], 2 * k), key_pair<T, C>(r[i % 2][n], 2 * k + 1));
    }
  }
};

template <class T, class C, int D> DI void split(const AttentionArgs& a, Shared<D>& room) {
  if (blockIdx.x >= *at<const u32>(a.count)) return;
  const Item item = at<const Item>(a.items)[blockIdx.x];
  const Heads heads = heads_of(a);
  u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  using Some = Keys<T, C, D>;
  const u32* table = table_of(a.cache, item.slot);
  u64 first = a.cache.keys + (u64)heads.kv_head * PAGE * Some::ROW;
  u32 page = item.from / PAGE + warp, end = (item.to + PAGE - 1) / PAGE;
  u32 entry = page < end ? table[page] : 0, following = page + 4 < end ? table[page + 4] : 0;
  u64 block = first + entry * a.cache.page_bytes;
  Some keys;
  if (page < end) keys.fetch(0, block + g * Some::ROW, t);
  stage_queries<C, D>(a, item, heads, room);
  Rows<D> rows;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    u32 r = g + 8 * h;
    Seen seen = seen_by(a, item, r / heads.count);
    rows.from[h] = seen.from, rows.to[h] = r < item.len * heads.count ? seen.to : 0;
    rows.best[h] = NEVER, rows.mass[h] = 0;
  }
#pragma unroll
  for (int j = 0; j < D / 8; j++) rows.sums[j][0] = rows.sums[j][1] = rows.sums[j][2] = rows.sums[j][3] = 0;
  __syncthreads();
  for (; page < end; page += 4) {
    u32 base = page * PAGE;
    u64 row[4];
    // Positions that nobody sees may hold anything: a neighbour's values stand in, times 0.
    auto find_rows = [&] {
      u32 low = max(item.from, base) - base, high = min(item.to - base, PAGE) - 1;
      // Computed here and not earlier: of registers there are no more.
      asm volatile("" : "+r"(low), "+r"(high));
#pragma unroll
      for (int i = 0; i < 4; i++)
        row[i] = block + a.cache.value_bytes + min(max(i / 2 * 8 + 2 * t + i % 2, low), high) * Some::ROW + 8 * SIZE<C> * g;
    };
    u32 value[Some::PIECES > 1 ? 2 : (D + 63) / 64][4][2 * SIZE<C>], p[4];
    if constexpr (Some::PIECES == 1) {
      find_rows();
      read_values<C, D>(value, row, g);
    }
    float s[2][4] = {};
#pragma unroll
    for (int i = 0; i < Some::PIECES; i++) {
      if (i + 1 < Some::PIECES) keys.fetch(i + 1, block + g * Some::ROW, t);
      keys.multiply(i, s, room.queries);
    }
    if constexpr (Some::PIECES > 1) {
      find_rows();
      read_stretch<C, D, 0>(value[0], row, g);
    }
    if (page + 4 < end) {
      block = first + following * a.cache.page_bytes;
      if (page + 8 < end) following = table[page + 8];
      keys.fetch(0, block + g * Some::ROW, t);
    }
    weigh<T, D>(a, rows, s, base, t, p);
    if constexpr (Some::PIECES == 1) add_all_values<T, C, D>(rows, p, value);
    else add_in_passing<T, C, D, 0>(rows, p, value, row, g);
  }
  finish<D>(a, item, heads, rows, room);
}

KERNEL(attention_split_bf16_64, AttentionArgs, 128, 4) { SHARED_ARRAY(Shared<64>, room, 1); split<bf16, bf16, 64>(a, room[0]); }
KERNEL(attention_split_bf16_80, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<80>, room, 1); split<bf16, bf16, 80>(a, room[0]); }
KERNEL(attention_split_bf16_96, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<96>, room, 1); split<bf16, bf16, 96>(a, room[0]); }
KERNEL(attention_split_bf16_128, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<128>, room, 1); split<bf16, bf16, 128>(a, room[0]); }
KERNEL(attention_split_bf16_192, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<192>, room, 1); split<bf16, bf16, 192>(a, room[0]); }
KERNEL(attention_split_bf16_256, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<256>, room, 1); split<bf16, bf16, 256>(a, room[0]); }
KERNEL(attention_split_bf16_f8_64, AttentionArgs, 128, 4) { SHARED_ARRAY(Shared<64>, room, 1); split<bf16, f8, 64>(a, room[0]); }
KERNEL(attention_split_bf16_f8_80, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<80>, room, 1); split<bf16, f8, 80>(a, room[0]); }
KERNEL(attention_split_bf16_f8_96, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<96>, room, 1); split<bf16, f8, 96>(a, room[0]); }
KERNEL(attention_split_bf16_f8_128, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<128>, room, 1); split<bf16, f8, 128>(a, room[0]); }
KERNEL(attention_split_bf16_f8_192, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<192>, room, 1); split<bf16, f8, 192>(a, room[0]); }
KERNEL(attention_split_bf16_f8_256, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<256>, room, 1); split<bf16, f8, 256>(a, room[0]); }
KERNEL(attention_split_f16_64, AttentionArgs, 128, 4) { SHARED_ARRAY(Shared<64>, room, 1); split<f16, f16, 64>(a, room[0]); }
KERNEL(attention_split_f16_80, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<80>, room, 1); split<f16, f16, 80>(a, room[0]); }
KERNEL(attention_split_f16_96, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<96>, room, 1); split<f16, f16, 96>(a, room[0]); }
KERNEL(attention_split_f16_128, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<128>, room, 1); split<f16, f16, 128>(a, room[0]); }
KERNEL(attention_split_f16_192, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<192>, room, 1); split<f16, f16, 192>(a, room[0]); }
KERNEL(attention_split_f16_256, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<256>, room, 1); split<f16, f16, 256>(a, room[0]); }
KERNEL(attention_split_f16_f8_64, AttentionArgs, 128, 4) { SHARED_ARRAY(Shared<64>, room, 1); split<f16, f8, 64>(a, room[0]); }
KERNEL(attention_split_f16_f8_80, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<80>, room, 1); split<f16, f8, 80>(a, room[0]); }
KERNEL(attention_split_f16_f8_96, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<96>, room, 1); split<f16, f8, 96>(a, room[0]); }
KERNEL(attention_split_f16_f8_128, AttentionArgs, 128, 3) { SHARED_ARRAY(Shared<128>, room, 1); split<f16, f8, 128>(a, room[0]); }
KERNEL(attention_split_f16_f8_192, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<192>, room, 1); split<f16, f8, 192>(a, room[0]); }
KERNEL(attention_split_f16_f8_256, AttentionArgs, 128, 2) { SHARED_ARRAY(Shared<256>, room, 1); split<f16, f8, 256>(a, room[0]); }
