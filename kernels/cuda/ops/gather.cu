// Rows picked by number: token embeddings, learned positions, the activations that need logits.
//
// embed_rows      out[r] = scale * table[token of r], 0 for a row without a slot
// embed_add_rows  out[r] += table[list[r]]
// select_rows     out[i] = x[list[i]]
//
// A block a row. Tables lie in any layout of weights and in several parts: one launch a part, each
// of which writes the rows whose number it holds. Bound by memory.
#include "stored.cuh"

#define NO_SLOT 0xffffffffu
// A token that only the device knows: the one that the slot drew last.
#define LATE 0xffffffffu

struct EmbedArgs {
  Stored table;
  Tensor out;    // [rows, width]
  u64 tokens;    // u32 [rows]
  u64 slots;     // u32 [rows]
  u64 last;      // u32 [slots]
  float scale;
  u32 blanks;    // 1: this part's launch writes the rows without a slot
};

KERNEL(embed_rows, EmbedArgs, 256, 1) {
  u32 row = blockIdx.x, slot = at<const u32>(a.slots)[row];
  if (slot == NO_SLOT) {
    if (!a.blanks) return;
    for (u32 k = threadIdx.x; k < a.out.width; k += 256) store(a.out, row, k, 0.0f);
    return;
  }
  u32 token = at<const u32>(a.tokens)[row];
  if (token == LATE) token = at<const u32>(a.last)[slot];
  // A token before the part wraps around to a large number.
  u32 from = token - a.table.first;
  if (from >= a.table.rows) return;
  stored_row(
      a.table, from,
      [&](u32 k, F4 v) { store4(a.out, row, k, F4{v.x * a.scale, v.y * a.scale, v.z * a.scale, v.w * a.scale}); },
      [&](u32 k, float v) { store(a.out, row, k, v * a.scale); });
}

struct EmbedAddArgs {
  Stored table;
  Tensor out;    // [rows, width]
  u64 list;      // u32 [rows]
};

KERNEL(embed_add_rows, EmbedAddArgs, 256, 1) {
  u32 row = blockIdx.x, from = at<const u32>(a.list)[row] - a.table.first;
  if (from >= a.table.rows) return;
  stored_row(
      a.table, from,
      [&](u32 k, F4 v) {
        F4 x = load4(a.out, row, k);
        store4(a.out, row, k, F4{x.x + v.x, x.y + v.y, x.z + v.z, x.w + v.w});
      },
      [&](u32 k, float v) { store(a.out, row, k, load(a.out, row, k) + v); });
}

struct SelectArgs {
  Tensor x;     // [any, width]
  Tensor out;   // [rows, width]
  u64 list;     // u32 [rows]
};

KERNEL(select_rows, SelectArgs, 256, 1) {
  u32 row = blockIdx.x, from = at<const u32>(a.list)[row], width = a.out.width;
  if (width % 4 == 0) {
    for (u32 k = 4 * threadIdx.x; k < width; k += 1024) store4(a.out, row, k, load4(a.x, from, k));
  } else {
    for (u32 k = threadIdx.x; k < width; k += 256) store(a.out, row, k, load(a.x, from, k));
  }
}
