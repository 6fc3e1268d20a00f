// The product of a warp's tensor-core instruction, for all 32 lanes at once.
//
// Terms are products of 16-bit floats, exact in f64; their sum with the accumulator is kept in f64
// and rounded once. A GPU's own sum is a little less exact.
#pragma once
#include <cstring>
#include "runtime.h"

inline float tensor_float(u32 bits) {
  float r;
  memcpy(&r, &bits, 4);
  return r;
}

// The value of 16 bits; branch-free, so that loops over it become vector code.
template <bool HALF> inline double widen(u32 bits) {
  if (!HALF) return tensor_float(bits << 16);
  u32 magnitude = (bits & 0x7fff) << 13;
  float value = tensor_float(magnitude) * 0x1p112f;
  u32 all;
  memcpy(&all, &value, 4);
  all = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : all;
  return tensor_float(all | (bits & 0x8000) << 16);
}

typedef double Row8 __attribute__((vector_size(64)));

// d += a * b with the lane layouts of mma.sync.m16n8k16: lane 4 g + t holds rows g and g + 8 of a
// and d, column g of b, columns 2t 2t+1 of d.
template <bool HALF> void multiply_add(emu::Slot* slots) {
  double a[16][16];
  union { Row8 rows[16]; double values[16][8]; } b;
  for (u32 lane = 0; lane < 32; lane++) {
    u32 g = lane >> 2, k = (lane & 3) * 4;
    const auto& in = slots[lane].mma;
    // The order of k is the lanes' own, the same in a and b.
    for (u32 j = 0; j < 4; j++) {
      double* to = &a[g + 8 * (j & 1)][k + (j >> 1) * 2];
      to[0] = widen<HALF>(in.a[j] & 0xffff);
      to[1] = widen<HALF>(in.a[j] >> 16);
    }
    for (u32 j = 0; j < 2; j++) {
      b.values[k + 2 * j][g] = widen<HALF>(in.b[j] & 0xffff);
      b.values[k + 2 * j + 1][g] = widen<HALF>(in.b[j] >> 16);
    }
  }
  for (u32 row = 0; row < 16; row++) {
    union { Row8 row; double values[8]; } sum = {};
    for (u32 k = 0; k < 16; k++) sum.row += a[row][k] * b.rows[k];
    emu::Slot* out = slots + (row & 7) * 4;
    for (u32 column = 0; column < 8; column++) {
      float& d = out[column >> 1].mma.d[(row >> 3) * 2 + (column & 1)];
      d = static_cast<float>(d + sum.values[column]);
    }
  }
}
