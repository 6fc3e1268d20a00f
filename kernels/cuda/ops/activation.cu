// The functions inside an MLP, and gates of whole rows.
//
// activate    out[r][i] = f(x[r][i]), or gated f(x[r][i]) * x[r][width + i]
// gate_rows   x[r] *= sigmoid(gate[r][0])
//
// Each has two variants, both bound by memory: `_wide` moves 8 elements a thread (16 bytes of
// 16-bit numbers) and wins wherever the width is a multiple of 8; `_any` takes one element.
// Grid: rows, pieces of a row.
#include "device.cuh"

struct ActivateArgs {
  Tensor x;      // [rows, width] or gated [rows, 2 * width]
  Tensor out;    // [rows, width]
  u32 function;  // as Function
  u32 gated;
  float alpha;   // of CLAMPED
  float limit;   // of CLAMPED
};

struct GateArgs {
  Tensor x;     // [rows, width]
  Tensor gate;  // [rows, any]: the first column counts
};

enum Function : u32 { SILU = 0, GELU = 1, GELU_TANH = 2, RELU = 3, RELU_SQUARED = 4, CLAMPED = 5 };

// by * sigmoid(x)
DI float logistic(float x, float by) { return by / (1.0f + expf(-x)); }

// By comparisons that a NaN fails, so that it stays.
DI float at_least_0(float x) { return x < 0.0f ? 0.0f : x; }
DI float at_most(float x, float limit) { return x > limit ? limit : x; }

// f(x); for CLAMPED what the gate gives.
DI float value(const ActivateArgs& a, float x) {
  switch (a.function) {
    case SILU: return logistic(x, x);
    case GELU:
      // The tail as such, so that negative x keep their digits; beyond 14 it is 0, and infinity
      // times 0 must not make it a NaN.
      return x < -14.0f ? -0.0f : 0.5f * x * erfcf(x * -0.70710678f);
    case GELU_TANH: {
      // (1 + tanh u) / 2 is the logistic function of 2u. sqrt(2 / pi) and the weight of the cube
      // are of arXiv 1606.08415.
      float u = 0.7978845608f * x * fmaf(x * x, 0.044715f, 1.0f);
      return logistic(2.0f * u, x);
    }
    case RELU: return at_least_0(x);
    case RELU_SQUARED: return at_least_0(x) * at_least_0(x);
    default: {
      float gate = at_most(x, a.limit);
      return logistic(a.alpha * gate, gate);
    }
  }
}

// What a gate multiplies.
DI float factor(const ActivateArgs& a, float up) {
  if (a.function != CLAMPED) return up;
  up = at_most(up, a.limit);
  return (up < -a.limit ? -a.limit : up) + 1.0f;
}

KERNEL(activate_wide, ActivateArgs, 128, 1) {
  u32 row = blockIdx.x, column = (blockIdx.y * 128 + threadIdx.x) * 8;
  if (column >= a.out.width) return;
  F8 x = load8(a.x, row, column);
#pragma unroll
  for (int k = 0; k < 8; k++) x.v[k] = value(a, x.v[k]);
  if (a.gated) {
    F8 up = load8(a.x, row, a.out.width + column);
#pragma unroll
    for (int k = 0; k < 8; k++) x.v[k] *= factor(a, up.v[k]);
  }
  store8(a.out, row, column, x);
}

KERNEL(activate_any, ActivateArgs, 128, 1) {
  u32 row = blockIdx.x, column = blockIdx.y * 128 + threadIdx.x;
  if (column >= a.out.width) return;
  float x = value(a, load(a.x, row, column));
  if (a.gated) x *= factor(a, load(a.x, row, a.out.width + column));
  store(a.out, row, column, x);
}

KERNEL(gate_wide, GateArgs, 128, 1) {
  u32 row = blockIdx.x, column = (blockIdx.y * 128 + threadIdx.x) * 8;
  if (column >= a.x.width) return;
  float by = logistic(load(a.gate, row, 0), 1.0f);
  F8 x = load8(a.x, row, column);
#pragma unroll
  for (int k = 0; k < 8; k++) x.v[k] *= by;
  store8(a.x, row, column, x);
}

KERNEL(gate_any, GateArgs, 128, 1) {
  u32 row = blockIdx.x, column = blockIdx.y * 128 + threadIdx.x;
  if (column >= a.x.width) return;
  store(a.x, row, column, load(a.x, row, column) * logistic(load(a.gate, row, 0), 1.0f));
}
