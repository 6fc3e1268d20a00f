// Weights as operand A of mma.m16n8k16: 16 rows of a matrix straight from global memory to the
// registers of a warp, and the sums of a few rows of x with them.
//
// How weights lie is drawn at the head of src/matrix.rs. A "chunk" is the k that a lane covers with
// one 16-byte load of a row (or of a tile of codes); it has STEPS mma steps of 16 k. Which lane
// holds which k is the layout's own business: x is read with the same permutation, and a sum does
// not care. Codes become small whole numbers, exact in bf16 and f16; scales stay f32 and multiply
// the sum of a group, so nothing is rounded on the way.
//
// A view of rows has
//   Type                  the operands' type
//   STEPS, CHUNK          steps and k of a chunk; CHUNK = 16 STEPS
//   SUMMED                steps whose sums share a scale: STEPS / SUMMED sums a chunk
//   SCALED, MINIMUM       whether there are scales; whether the offset is Minimum
//   PAIRED                x is read 16 bytes at a time, for two steps, rather than 8 for one
//   Place place(i)        where a lane reads 16 rows, those from 16 i on behind the view's first.
//                         Rows that are not there are other ones: what comes of them is not used
//   Raw load(place, c)    a lane's part of chunk c of them
//   operand(raw, s, a)    operand A of step s
//   scale(raw, f)         scales of rows g and g + 8 for sum f; minimum(raw, f) alike
//   column()              where in a chunk of x the lane's elements begin
//   piece(p)              how far behind that the four of step p (the eight of pair p: PAIRED) are
//
// Addresses are made once and kept in registers: the loop has few instructions beside what the
// tensor cores need, since at the speed of memory a multiprocessor gets only a few for each weight.
#pragma once
#include "device.cuh"

enum Offset : u32 { OFFSET_NONE = 0, OFFSET_ZERO = 1, OFFSET_MINIMUM = 2 };

// A part of a matrix as kernels take it: the twin of `WeightArg` in src/ops/matmul/weight.rs.
struct Weight {
  u64 data;      // numbers or codes
  u64 scales;    // 0 for plain numbers
  u64 table;     // f32 [16] or 0
  u32 rows;      // padding aside
  u32 cols;
  u32 first;     // column of the result that row 0 writes
  u32 shift;     // 2^shift elements of k share a scale; 31: all of a row
  float bias;    // taken off every value
  float factor;  // multiplies everything
  u32 offset;    // of codes
  u32 pad;
};

// For a row of x that is not there: row 0 is, and what comes of it is not used.
#define NO_ROW 0u

// What differs between the types of operands: one, and a number whose last bits are the units, so
// that a code put there is BASE + code.
template <class T> struct Operand;
template <> struct Operand<bf16> {
  static constexpr u32 ONES = 0x3f803f80u, UNITS = 0x43004300u;
  static constexpr float BASE = 128;
};
template <> struct Operand<f16> {
  static constexpr u32 ONES = 0x3c003c00u, UNITS = 0x64006400u;
  static constexpr float BASE = 1024;
};

// Eight codes of 4 bits as operand A, less `low` for row g and `high` for row g + 8: whole numbers.
// (A number to take off above 128, which no real 4-bit code has, is off by one in bf16 if it is odd.)
DI void eight_codes(bf16, u32 word, float low, float high, u32 (&a)[4]) {
  typedef Operand<bf16> O;
  const u32 less[2] = {pack_bf16(-low - O::BASE, -low - O::BASE), pack_bf16(-high - O::BASE, -high - O::BASE)};
#pragma unroll
  for (int j = 0; j < 4; j++) a[j] = fma_bf16x2(and_or(word >> 4 * j, 0x000f000fu, O::UNITS), O::ONES, less[j & 1]);
}
// f16 has room for codes four bits further up, where they are 1024 + 16 code: fewer shifts.
DI void eight_codes(f16, u32 word, float low, float high, u32 (&a)[4]) {
  typedef Operand<f16> O;
  const u32 less[2] = {pack_f16(-low - O::BASE, -low - O::BASE), pack_f16(-high - O::BASE / 16, -high - O::BASE / 16)};
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    a[j] = fma_f16x2(and_or(word >> 4 * j, 0x000f000fu, O::UNITS), O::ONES, less[0]);
    a[j + 1] = fma_f16x2(and_or(word >> 4 * j, 0x00f000f0u, O::UNITS), 0x2c002c00u, less[1]);
  }
}

// Bytes `from` and from + 1 of a word, less `off`.
DI u32 two_bytes(f16, u32 word, int from, float off) {
  u32 codes = permute(word, Operand<f16>::UNITS, from ? 0x5352 : 0x5150);
  return fma_f16x2(codes, Operand<f16>::ONES, pack_f16(-off - 1024.0f, -off - 1024.0f));
}
// 8 bits do not fit behind bf16's point: the way leads over f32, whose last bits are the units at
// 2^23.
DI u32 two_bytes(bf16, u32 word, int from, float off) {
  float low = as_float(permute(word, 0x4b000000u, from ? 0x7442 : 0x7440));
  float high = as_float(permute(word, 0x4b000000u, from ? 0x7443 : 0x7441));
  return pack_bf16(low - (8388608.0f + off), high - (8388608.0f + off));
}

// Two bytes e4m3fn, chosen from a word by `order` into the upper halves of 16 bits; in bf16 as they
// are, in f16 divided by 256 (which the scale makes up for). Codes of NaN are the loader's affair.
template <class T> DI u32 two_f8(u32 word, u32 order);
template <> DI u32 two_f8<bf16>(u32 word, u32 order) {
  u32 x = permute(word, 0, order);
  // The exponent's bias is 120 less than bf16's.
  return fma_bf16x2((x & 0x80008000u) | (x >> 4 & 0x07f007f0u), 0x7b807b80u, 0x80008000u);
}
template <> DI u32 two_f8<f16>(u32 word, u32 order) {
  u32 x = permute(word, 0, order);
  return (x & 0x80008000u) | (x >> 1 & 0x3f803f80u);
}
template <class T> struct F8Factor { static constexpr float VALUE = 1.0f; };
template <> struct F8Factor<f16> { static constexpr float VALUE = 256.0f; };

// Numbers of the operands' type, row-major; cols is a multiple of 8, rows begin 16-byte aligned.
template <class T> struct PlainRows {
  typedef T Type;
  static constexpr int STEPS = 2, CHUNK = 32, SUMMED = 2;
  static constexpr bool SCALED = false, MINIMUM = false, PAIRED = true;
  struct Place { u64 low, high; };
  struct Raw { U4 low, high; };
  u64 data;
  u32 cols, first, end;

  // Rows first..end of the part.
  DI PlainRows(const Weight& w, u32 first, u32 end, const u32*) : data(w.data), cols(w.cols), first(first), end(end) {}
  DI u32 column() const { return threadIdx.x % 4 * 8; }
  static constexpr u32 piece(int) { return 0; }
  DI u64 row(u32 row) const { return in_register(data + 2 * ((u64)min(row, end - 1) * cols + column())); }
  DI Place place(int i) const {
    u32 g = first + 16 * i + threadIdx.x % 32 / 4;
    return Place{row(g), row(g + 8)};
  }
  DI Raw load(const Place& place, u32 chunk) const {
    Raw raw = {};
    if (CHUNK * chunk + column() < cols) {
      raw.low = load_once(at<const U4>(place.low + 2 * CHUNK * (u64)chunk));
      raw.high = load_once(at<const U4>(place.high + 2 * CHUNK * (u64)chunk));
    }
    return raw;
  }
  DI void operand(const Raw& raw, int s, u32 (&a)[4]) const {
    a[0] = s ? raw.low.z : raw.low.x;
    a[1] = s ? raw.high.z : raw.high.x;
    a[2] = s ? raw.low.w : raw.low.y;
    a[3] = s ? raw.high.w : raw.high.y;
  }
  DI F2 scale(const Raw&, int) const { return F2{1.0f, 1.0f}; }
  DI F2 minimum(const Raw&, int) const { return F2{0.0f, 0.0f}; }
};

// e4m3fn, row-major; cols is a multiple of 32. PER_SCALE 2 is for blocks of 32: a lane's 16 bytes
// are then 8 of each block, because a sum must not mix blocks.
template <class T, int PER_SCALE> struct F8Rows {
  typedef T Type;
  static constexpr int STEPS = 4, CHUNK = 64, SUMMED = PER_SCALE, SUMS = STEPS / SUMMED;
  static constexpr bool SCALED = true, MINIMUM = false, PAIRED = true;
  // Rows g + 8 and their scales are `by` and `scale_by` bytes further on.
  struct Place { u64 data, scales; u32 by, scale_by; };
  struct Raw { U2 low[2], high[2]; float scale_low[SUMS], scale_high[SUMS]; };
  u64 data, scales;
  u32 cols, first, end, rows, shift;

  DI F8Rows(const Weight& w, u32 first, u32 end, const u32*)
      : data(w.data), scales(w.scales), cols(w.cols), first(first), end(end), rows(w.rows), shift(SUMS > 1 ? 5 : w.shift) {}
  DI u32 column() const { return threadIdx.x % 4 * (SUMMED == 4 ? 16 : 8); }
  static constexpr u32 piece(int p) { return SUMMED == 4 ? 8 * p : 32 * p; }
  DI Place place(int i) const {
    u32 g = first + 16 * i + threadIdx.x % 32 / 4, low = min(g, end - 1), high = min(g + 8, end - 1);
    return Place{in_register(data + (u64)low * cols + column()), in_register(scales + 4 * (u64)low), (high - low) * cols, 4 * (high - low)};
  }
  DI void row(u64 from, u32 chunk, U2 (&to)[2]) const {
    const u32 k = CHUNK * chunk + column();
    if (SUMMED == 4) {
      if (k >= cols) return;
      U4 both = load_once(at<const U4>(from));
      to[0] = U2{both.x, both.y};
      to[1] = U2{both.z, both.w};
    } else {
      if (k < cols) to[0] = load_once(at<const U2>(from));
      if (k + 32 < cols) to[1] = load_once(at<const U2>(from + 32));
    }
  }
  DI Raw load(const Place& place, u32 chunk) const {
    Raw raw = {};
    u64 from = place.data + CHUNK * (u64)chunk;
    row(from, chunk, raw.low);
    row(from + place.by, chunk, raw.high);
#pragma unroll
    for (int f = 0; f < SUMS; f++) {
      u32 k = CHUNK * chunk + 16 * SUMMED * f;
      if (f && k >= cols) break;
      u64 scale = place.scales + (u64)(k >> shift) * (4 * rows);
      raw.scale_low[f] = as_float(load_again(at<const u32>(scale)));
      raw.scale_high[f] = as_float(load_again(at<const u32>(scale + place.scale_by)));
    }
    return raw;
  }
  DI void operand(const Raw& raw, int s, u32 (&a)[4]) const {
    u32 low = s & 1 ? raw.low[s / 2].y : raw.low[s / 2].x;
    u32 high = s & 1 ? raw.high[s / 2].y : raw.high[s / 2].x;
    a[0] = two_f8<T>(low, 0x1404);
    a[1] = two_f8<T>(high, 0x1404);
    a[2] = two_f8<T>(low, 0x3424);
    a[3] = two_f8<T>(high, 0x3424);
  }
  DI F2 scale(const Raw& raw, int f) const {
    return F2{raw.scale_low[f] * F8Factor<T>::VALUE, raw.scale_high[f] * F8Factor<T>::VALUE};
  }
  DI F2 minimum(const Raw&, int) const { return F2{0.0f, 0.0f}; }
};

// Tiles of codes of BITS bits; `first` is a multiple of 16. TABLE: codes are looked up two at a time
// in `pairs`, which fill_pairs made. Without WITH_MINIMUM, ZEROS says whether every row has a zero
// point of its own; ASK: Weight::offset does.
enum Zeros { NO_ZEROS, ALL_ZEROS, ASK };
template <class T, int BITS, int PER_SCALE, bool WITH_MINIMUM, bool TABLE, Zeros ZEROS = ASK> struct CodeRows {
  typedef T Type;
  static constexpr int STEPS = BITS == 4 ? 4 : 2, CHUNK = 16 * STEPS, SUMMED = PER_SCALE;
  static constexpr int SUMS = STEPS / SUMMED;
  static constexpr bool SCALED = true, MINIMUM = WITH_MINIMUM, PAIRED = false;
  struct Place { u64 data, scales; };
  struct Raw { U4 codes; u32 scale[SUMS], offset[SUMS]; };
  u64 data, scales;
  const u32* pairs;
  u32 chunks, groups, first, end, shift, offset;
  float bias;

  DI CodeRows(const Weight& w, u32 first, u32 end, const u32* pairs)
      : data(w.data), scales(w.scales), pairs(pairs), first(first), end(end), offset(w.offset), bias(w.bias) {
    // Where a chunk has several sums, each is a group.
    shift = SUMS == 1 ? w.shift : SUMMED == 1 ? 4 : 5;
    chunks = (w.cols + CHUNK - 1) / CHUNK;
    groups = (chunks * CHUNK + (1u << shift) - 1) >> shift;
  }
  DI bool zeros() const { return !MINIMUM && (ZEROS == ASK ? offset == OFFSET_ZERO : ZEROS == ALL_ZEROS); }
  // Bytes of a pair of entries.
  DI u32 entry() const { return MINIMUM || zeros() ? 8 : 4; }
  DI u32 column() const { return threadIdx.x % 4 * 4; }
  static constexpr u32 piece(int s) { return 16 * s; }
  DI Place place(int i) const {
    u32 lane = threadIdx.x % 32, block = first / 16 + (first + 16 * i < end ? i : 0);
    u64 codes = data + (u64)block * chunks * 512 + lane * 16;
    return Place{in_register(codes), in_register(scales + ((u64)block * groups * 8 + lane / 4) * entry())};
  }
  DI Raw load(const Place& place, u32 chunk) const {
    Raw raw = {};
    raw.codes = load_once(at<const U4>(place.data + (u64)chunk * 512));
    u64 from = place.scales + (u64)(SUMS == 1 ? CHUNK * chunk >> shift : SUMS * chunk) * (8 * entry());
#pragma unroll
    for (int f = 0; f < SUMS; f++) {
      if (entry() == 8) {
        U2 both = load_once(at<const U2>(from + 64 * f));
        raw.scale[f] = both.x;
        raw.offset[f] = both.y;
      } else {
        raw.scale[f] = load_once(at<const u32>(from + 32 * f));
      }
    }
    return raw;
  }
  // Register j takes nibbles j and j + 4: as one byte, first at bit 7 and second at bit 15, it is an
  // offset in the lane's copy of the table, which has a line of 128 bytes for each pair.
  DI void look_up(u32 word, u32 (&a)[4]) const {
    const u8* table = reinterpret_cast<const u8*>(pairs);
    const u32 lane = threadIdx.x % 32 * 4;
#pragma unroll
    for (int j = 0; j < 2; j++) {
      u32 codes = word >> 4 * j & 0x0f0f0f0fu, bytes = codes << 7 | codes >> 5;
      a[j] = *reinterpret_cast<const u32*>(table + and_or(bytes, 0x7f80u, lane));
      a[j + 2] = *reinterpret_cast<const u32*>(table + and_or(bytes >> 8, 0x7f80u, lane));
    }
  }
  DI void operand(const Raw& raw, int s, u32 (&a)[4]) const {
    const F2 off = zeros() ? unpack<f16>(raw.offset[s / SUMMED]) : F2{bias, bias};
    if (BITS == 4) {
      u32 word = s == 0 ? raw.codes.x : s == 1 ? raw.codes.y : s == 2 ? raw.codes.z : raw.codes.w;
      if (TABLE) {
        look_up(word, a);
      } else {
        eight_codes(T(), word, off.x, off.y, a);
      }
    } else {
      u32 first = s ? raw.codes.z : raw.codes.x, second = s ? raw.codes.w : raw.codes.y;
      a[0] = two_bytes(T(), first, 0, off.x);
      a[1] = two_bytes(T(), first, 2, off.y);
      a[2] = two_bytes(T(), second, 0, off.x);
      a[3] = two_bytes(T(), second, 2, off.y);
    }
  }
  DI F2 scale(const Raw& raw, int f) const { return unpack<f16>(raw.scale[f]); }
  DI F2 minimum(const Raw& raw, int f) const { return unpack<f16>(raw.offset[f]); }
};

// Entries of the table of pairs of codes: each lane has its own copy, so that lookups of a warp
// fall in different banks.
#define PAIRS (256 * 32)

// Fills `pairs` by all threads of the block; a barrier has to follow.
template <class T> DI void fill_pairs(const Weight& w, u32* pairs) {
  const float* table = at<const float>(w.table);
  for (u32 both = threadIdx.x; both < 256; both += blockDim.x) {
    u32 value = pack<T>(table[both & 15] - w.bias, table[both >> 4] - w.bias);
    U4* line = reinterpret_cast<U4*>(pairs + 32 * both);
    // Each thread begins elsewhere in its line: otherwise all would write to the same banks.
#pragma unroll
    for (u32 i = 0; i < 8; i++) line[(i + threadIdx.x) % 8] = U4{value, value, value, value};
  }
}

// Operand B of sum `f` of a chunk for one column of the mma. `from` is where the lane's first
// elements are, `left` how many columns are left from there on; behind them are zeros.
template <class V> DI void load_x(u64 from, int left, int f, u32 (&b)[V::SUMMED][2]) {
  constexpr int LOADS = V::PAIRED ? V::SUMMED / 2 : V::SUMMED;
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    constexpr int EACH = V::PAIRED ? 2 : 1;
    const u32 piece = V::piece(LOADS * f + i);
    const bool there = (int)piece < left;
    if (V::PAIRED) {
      U4 v = {0, 0, 0, 0};
      if (there) v = load_again(at<const U4>(from + 2 * piece));
      b[EACH * i][0] = v.x;
      b[EACH * i][1] = v.y;
      b[EACH * i + EACH - 1][0] = v.z;
      b[EACH * i + EACH - 1][1] = v.w;
    } else {
      U2 v = {0, 0};
      if (there) v = load_again(at<const U2>(from + 2 * piece));
      b[i][0] = v.x;
      b[i][1] = v.y;
    }
  }
}

// d += a * b over the steps of a sum, for some rows of weights.
template <class T, int TILES, int STEPS>
DI void multiply_steps(float (&d)[TILES][4], const u32 (&a)[TILES][STEPS][4], const u32 (&b)[STEPS][2]) {
#pragma unroll
  for (int s = 0; s < STEPS; s++) {
#pragma unroll
    for (int i = 0; i < TILES; i++) mma(T(), d[i], a[i][s], b[s][0], b[s][1]);
  }
}

// The sums of one chunk; see sum_rows. `from` is where the chunk of element 0 of x begins for the
// lane, `left` how many columns are left from there on.
template <class V, int TILES, int COLUMNS>
DI void sum_chunk(const V& w, const typename V::Raw (&raw)[TILES], u64 from, int left, const u32 (&at_x)[COLUMNS],
                  float (&sum)[COLUMNS][TILES][4]) {
  typedef typename V::Type T;
  const u32 ones[4] = {Operand<T>::ONES, Operand<T>::ONES, Operand<T>::ONES, Operand<T>::ONES};
#pragma unroll
  for (int f = 0; f < V::STEPS / V::SUMMED; f++) {
    u32 a[TILES][V::SUMMED][4];
    F2 scale[TILES], minimum[TILES];
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
      for (int s = 0; s < V::SUMMED; s++) w.operand(raw[i], f * V::SUMMED + s, a[i][s]);
      scale[i] = w.scale(raw[i], f);
      minimum[i] = w.minimum(raw[i], f);
    }
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
      u32 b[V::SUMMED][2];
      load_x<V>(from + 2 * (u64)at_x[n], left, f, b);
      if (!V::SCALED) {
        multiply_steps<T>(sum[n], a, b);
        continue;
      }
      float part[TILES][4] = {}, all[4] = {};
      multiply_steps<T>(part, a, b);
      if (V::MINIMUM) {
        // Every row of this product is the sum of x.
#pragma unroll
        for (int s = 0; s < V::SUMMED; s++) mma(T(), all, ones, b[s][0], b[s][1]);
      }
#pragma unroll
      for (int i = 0; i < TILES; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float value = fmaf(e < 2 ? scale[i].x : scale[i].y, part[i][e], sum[n][i][e]);
          if (V::MINIMUM) value = fmaf(e < 2 ? -minimum[i].x : -minimum[i].y, all[e], value);
          sum[n][i][e] = value;
        }
      }
    }
  }
}

// Sums of 16 TILES rows of w with 8 COLUMNS rows of x, over every `step`-th chunk of k from chunk
// `from` on. x is an address of 16-bit elements; lane 4 g + t gives in `at_x` the element at which
// rows 8 n + g of x begin, or NO_ROW. sum[n][i] are accumulators as mma has them: [0] [1] for
// (row 16 i + g of w, rows 8 n + 2 t, + 1 of x), [2] [3] for row 16 i + g + 8. Nothing is multiplied
// by Weight::factor. DEPTH chunks are on their way from memory at a time.
template <class V, int TILES, int COLUMNS, int DEPTH>
DI void sum_rows(const V& w, u32 cols, u64 x, const u32 (&at_x)[COLUMNS], u32 from, u32 step, float (&sum)[COLUMNS][TILES][4]) {
  const u32 chunks = (cols + V::CHUNK - 1) / V::CHUNK;
  typename V::Place place[TILES];
  typename V::Raw raw[DEPTH][TILES];
#pragma unroll
  for (int i = 0; i < TILES; i++) place[i] = w.place(i);
#pragma unroll
  for (int d = 0; d < DEPTH; d++) {
#pragma unroll
    for (int i = 0; i < TILES; i++)
      if (from + d * step < chunks) raw[d][i] = w.load(place[i], from + d * step);
  }
  x = in_register(x + 2 * w.column());
  const int left = (int)(cols - w.column());
  for (u32 base = from; base < chunks; base += DEPTH * step) {
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      const u32 chunk = base + d * step, next = chunk + DEPTH * step;
      if (chunk >= chunks) break;
      sum_chunk<V, TILES, COLUMNS>(w, raw[d], x + 2 * V::CHUNK * (u64)chunk, left - (int)(V::CHUNK * chunk), at_x, sum);
#pragma unroll
      for (int i = 0; i < TILES; i++)
        if (next < chunks) raw[d][i] = w.load(place[i], next);
    }
  }
}
