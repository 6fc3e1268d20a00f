// The paged cache as kernels see it: where a position's key and value lie, and its elements.
//
// Pool: [page][layer][keys | values][kv_head][16 positions][head_dim]; no values where they are the
// first elements of the keys. A block [16][head_dim] starts at a multiple of 16 bytes.
#pragma once
#include "device.cuh"

#define NO_SLOT 0xffffffffu
#define PAGE 16u
#define HEAD_DIM_MAX 640

enum Element : u32 { ELEMENT_F32 = 0, ELEMENT_BF16 = 1, ELEMENT_F16 = 2, ELEMENT_F8 = 3 };
DI u32 element_bytes(u32 element) { return element == ELEMENT_F32 ? 4 : element == ELEMENT_F8 ? 1 : 2; }

// One layer of the cache.
struct Cache {
  u64 keys;            // keys of the layer on page 0
  u64 tables;          // u32 [slots][pages_per_slot]
  u64 page_bytes;      // from a page to the next
  u64 value_bytes;     // from a page's keys to its values; 0: they are the keys' first elements
  u32 pages_per_slot;
  u32 head_dim;        // elements of a key, and from a position to the next
  u32 element;
  u32 pad;
};

DI const u32* table_of(const Cache& c, u32 slot) { return at<const u32>(c.tables) + (u64)slot * c.pages_per_slot; }
// The key of a position of `page`.
DI u64 key_at(const Cache& c, u32 page, u32 kv_head, u32 position) {
  return c.keys + page * c.page_bytes + (u64)(kv_head * PAGE + position % PAGE) * c.head_dim * element_bytes(c.element);
}

// Element i of a row of the cache.
DI float cached(u64 row, u32 element, u32 i) {
  if (element == ELEMENT_F32) return at<const float>(row)[i];
  if (element == ELEMENT_BF16) return to_f32(at<const bf16>(row)[i]);
  if (element == ELEMENT_F16) return to_f32(at<const f16>(row)[i]);
  return to_f32(at<const f8>(row)[i]);
}
// Elements i.. i + 4 of a row of `n` elements, zeros behind its end; i is a multiple of 4.
DI F4 cached4(u64 row, u32 element, u32 i, u32 n) {
  if (n % 4) {
    F4 r = {0, 0, 0, 0};
    if (i < n) r.x = cached(row, element, i);
    if (i + 1 < n) r.y = cached(row, element, i + 1);
    if (i + 2 < n) r.z = cached(row, element, i + 2);
    if (i + 3 < n) r.w = cached(row, element, i + 3);
    return r;
  }
  if (i >= n) return F4{0, 0, 0, 0};
  if (element == ELEMENT_F32) return at<const F4>(row)[i / 4];
  if (element == ELEMENT_F8) {
    u32 v = at<const u32>(row)[i / 4];
    return F4{to_f32(f8{(u8)v}), to_f32(f8{(u8)(v >> 8)}), to_f32(f8{(u8)(v >> 16)}), to_f32(f8{(u8)(v >> 24)})};
  }
  U2 v = at<const U2>(row)[i / 4];
  F2 a = element == ELEMENT_BF16 ? unpack<bf16>(v.x) : unpack<f16>(v.x);
  F2 b = element == ELEMENT_BF16 ? unpack<bf16>(v.y) : unpack<f16>(v.y);
  return F4{a.x, a.y, b.x, b.y};
}
DI void keep(u64 row, u32 element, u32 i, float v) {
  if (element == ELEMENT_F32) at<float>(row)[i] = v;
  else if (element == ELEMENT_BF16) at<bf16>(row)[i] = From<bf16>::f32(v);
  else if (element == ELEMENT_F16) at<f16>(row)[i] = From<f16>::f32(v);
  else at<u8>(row)[i] = f32_to_f8(v);
}
// Eight elements from i, a multiple of 8, of a row that starts at a multiple of eight elements.
DI void keep8(u64 row, u32 element, u32 i, const float (&v)[8]) {
  if (element == ELEMENT_F32) {
    at<F4>(row)[i / 4] = F4{v[0], v[1], v[2], v[3]};
    at<F4>(row)[i / 4 + 1] = F4{v[4], v[5], v[6], v[7]};
  } else if (element == ELEMENT_BF16) {
    at<U4>(row)[i / 8] = U4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
  } else if (element == ELEMENT_F16) {
    at<U4>(row)[i / 8] = U4{pack_f16(v[0], v[1]), pack_f16(v[2], v[3]), pack_f16(v[4], v[5]), pack_f16(v[6], v[7])};
  } else {
    u32 low = 0, high = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      low |= (u32)f32_to_f8(v[k]) << 8 * k;
      high |= (u32)f32_to_f8(v[k + 4]) << 8 * k;
    }
    at<U2>(row)[i / 8] = U2{low, high};
  }
}

// Element i of a head whose first 2 * pairs elements turn. `table` holds `pairs` cosines, then as
// many sines. x may be shared memory.
DI float turned(const float* x, const float* table, u32 i, u32 pairs, u32 interleaved) {
  if (i >= 2 * pairs) return x[i];
  u32 pair = interleaved ? i / 2 : i < pairs ? i : i - pairs;
  bool second = interleaved ? i & 1 : i >= pairs;
  float other = x[interleaved ? i ^ 1 : second ? pair : pair + pairs];
  float along = x[i] * table[pair], across = other * table[pairs + pair];
  return second ? along + across : along - across;
}
