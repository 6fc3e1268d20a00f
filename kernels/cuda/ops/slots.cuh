// What is kept of a slot between steps: how it draws. The twin is in src/ops/sample/slots.rs.
#pragma once
#include "device.cuh"

constexpr u32 BIAS_MAX = 4096;
constexpr u32 BANNED_MAX = 64;

struct Sampler {
  u64 seed;
  float temperature;  // 0: greedy
  float sharpness;    // one over the temperature, finite
  float top_p;        // 1: off
  float min_p;        // 0: off
  float typical_p;    // 1: off
  float repetition;   // 1: off
  float presence;     // 0: off
  float frequency;    // 0: off
  u32 top_k;          // 0: off
  u32 bias;           // entries of the slot's list
  u32 banned;         // entries of the slot's list
  u32 banned_until;   // positions below have bans
  u32 penalized;      // whether the slot's counts are kept
  u32 pad;
};

struct Bias {
  u32 token;
  float value;
};
