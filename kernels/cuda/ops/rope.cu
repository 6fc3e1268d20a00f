// The rotation table of a step: cosines, then sines, of each row's position.
//
// One block a row. An angle is the f32 product that the models' own code computes; it is brought
// into a turn in f64, so that at position 100,000 the head points where it should.
#include "device.cuh"

enum Beyond : u32 { BEYOND_NONE = 0, BEYOND_LONG = 1, BEYOND_DYNAMIC = 2 };

struct RopeArgs {
  u64 out;        // f32 [rows, 2 * pairs]
  u64 positions;  // u32 [rows]
  u64 sequences;  // u32 [rows]: tokens of the sequence that the row counts as part of
  u64 inv_freq;   // f32 [pairs]
  u64 other;      // f32 [pairs]: frequencies of sequences beyond the limit
  float magnitude;
  float theta;
  float factor;
  u32 limit;      // longest sequence that `inv_freq` holds for
  u32 beyond;
  u32 pairs;
};

KERNEL(rope_table, RopeArgs, 128, 1) {
  u32 row = blockIdx.x;
  float position = (float)at<const u32>(a.positions)[row];
  u32 sequence = at<const u32>(a.sequences)[row];
  bool far = a.beyond != BEYOND_NONE && sequence > a.limit;
  const float* list = at<const float>(far && a.beyond == BEYOND_LONG ? a.other : a.inv_freq);
  bool powers = far && a.beyond == BEYOND_DYNAMIC;
  float base = 1.0f;
  if (powers) {
    double dim = 2.0 * a.pairs;
    double stretch = (double)a.factor * sequence / a.limit - ((double)a.factor - 1.0);
    base = (float)((double)a.theta * pow(stretch, dim / (dim - 2.0)));
  }
  float* out = at<float>(a.out) + (u64)row * 2 * a.pairs;
  for (u32 i = threadIdx.x; i < a.pairs; i += 128) {
    // A power that is off by some ulp is off by whole radians far out: f64, rounded once.
    float frequency = powers ? 1.0f / (float)pow((double)base, (double)((float)(2 * i) / (float)(2 * a.pairs))) : list[i];
    double angle = (double)(position * frequency);
    double turns = rint(angle * 0.15915494309189535);
    float rest = (float)fma(turns, -6.283185307179586, angle);
    float s, c;
    sincosf(rest, &s, &c);
    out[i] = c * a.magnitude;
    out[a.pairs + i] = s * a.magnitude;
  }
}
