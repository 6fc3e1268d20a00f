// Slots that start: how they draw, and which tokens they have seen.
//
// slot_start  one block: sampler and lists to where they are kept; nothing is drawn yet
// slot_count  one thread a token: counts of a slot with a penalty, which were zeroed before
#include "slots.cuh"

struct StartArgs {
  Sampler sampler;
  u64 sampler_at;     // Sampler of the slot
  u64 last_at;        // u32 of the slot: the token drawn last
  u64 bias_from;      // Bias [sampler.bias]
  u64 bias_to;        // Bias [BIAS_MAX] of the slot
  u64 banned_from;    // u32 [sampler.banned]
  u64 banned_to;      // u32 [BANNED_MAX] of the slot
};

KERNEL(slot_start, StartArgs, 256, 1) {
  if (threadIdx.x == 0) {
    *at<Sampler>(a.sampler_at) = a.sampler;
    *at<u32>(a.last_at) = 0;
  }
  for (u32 i = threadIdx.x; i < a.sampler.bias; i += 256) at<Bias>(a.bias_to)[i] = at<const Bias>(a.bias_from)[i];
  for (u32 i = threadIdx.x; i < a.sampler.banned; i += 256) at<u32>(a.banned_to)[i] = at<const u32>(a.banned_from)[i];
}

struct CountArgs {
  u64 tokens;  // u32 [count]
  u64 counts;  // u16 [vocab] of the slot: bit 15 in the prompt, below times in the output
  u32 count;
  u32 prompt;  // so many of the tokens are the prompt
  u32 vocab;
  u32 pad;
};

KERNEL(slot_count, CountArgs, 256, 1) {
  u32 i = blockIdx.x * 256 + threadIdx.x;
  if (i >= a.count) return;
  u32 token = at<const u32>(a.tokens)[i];
  if (token >= a.vocab) return;  // no logit, no penalty
  u32* pair = at<u32>(a.counts) + token / 2;
  u32 shift = token % 2 * 16;
  if (i < a.prompt) {
    atomicOr(pair, 0x8000u << shift);
    return;
  }
  u32 old = *pair;
  // Counts stop at the most that fits.
  while ((old >> shift & 0x7fff) != 0x7fff) {
    u32 found = atomicCAS(pair, old, old + (1u << shift));
    if (found == old) break;
    old = found;
  }
}
