// Draws one token for each row of logits.
//
// One block a row, no sort of the vocabulary. One walk finds the greatest logit: greedy rows are
// done. A row that is drawn from as a whole is walked once more for the sum of its masses, and a
// sixteenth of it for the place of the draw. top_k up to 256 lists its candidates in a second walk;
// other cuts walk once to weigh and once to list (cut.cuh). Bias and bans are written into the row,
// and taken back where its log-probabilities are wanted; penalties are applied on the way, from the
// slot's counts, and so is the mask, which leaves the row as it is for its log-probabilities. The token
// joins the counts, so that the next step need not wait for the host.
#include "cut.cuh"
#include "slots.cuh"

struct SampleArgs {
  u64 logits;    // f32 [rows, vocab]
  u64 count;     // u32: real rows
  u64 rows;      // SampleRow [rows]
  u64 samplers;  // Sampler [slots]
  u64 bias;      // Bias [slots, BIAS_MAX], by token
  u64 banned;    // u32 [slots, BANNED_MAX], each once
  u64 counts;    // u16 [slots, counts_stride]
  u64 last;      // u32 [slots]
  u64 masks;     // u32 [.., mask_words]: see Row
  u64 results;   // bytes
  u32 vocab;
  u32 counts_stride;
  u32 mask_words;
  u32 pad;
};

struct SampleRow {
  u32 slot;
  u32 position;  // that the drawn token will take
  u32 keep;      // whether the logits must be left as they are
  u32 result;    // where the token goes, in bytes
  u32 mask;      // row of the masks; -1 for none
};
constexpr u32 NO_MASK = 0xffffffffu;

// The finalizer of splitmix64.
DI u64 mix(u64 x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
DI u64 random_bits(u64 seed, u32 position) {
  const u64 golden = 0x9e3779b97f4a7c15ull;
  return mix(mix(seed + golden) ^ mix(position * golden));
}

// The lists that change single logits, and what stood there.
struct Edits {
  const Bias* bias;
  const u32* banned;
  u32 biased, bans;
  float* undo;  // [BIAS_MAX + BANNED_MAX], shared
};

DI void edit(float* x, u32 vocab, const Edits& e) {
  for (u32 i = threadIdx.x; i < e.biased; i += ROW_THREADS) {
    u32 token = e.bias[i].token;
    // Entries of the same token stand together: who has the first adds them all, in their order.
    if (token >= vocab || (i > 0 && e.bias[i - 1].token == token)) continue;
    float v = x[token];
    e.undo[i] = v;
    for (u32 k = i; k < e.biased && e.bias[k].token == token; k++) v += e.bias[k].value;
    x[token] = v;
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < e.bans; i += ROW_THREADS) {
    u32 token = e.banned[i];
    if (token >= vocab) continue;
    float v = x[token];
    e.undo[BIAS_MAX + i] = v;
    // A NaN must not hide behind a ban.
    x[token] = v == v ? as_float(LOWEST) : v;
  }
  __syncthreads();
}

DI void restore(float* x, u32 vocab, const Edits& e) {
  __syncthreads();
  for (u32 i = threadIdx.x; i < e.bans; i += ROW_THREADS)
    if (e.banned[i] < vocab) x[e.banned[i]] = e.undo[BIAS_MAX + i];
  __syncthreads();
  for (u32 i = threadIdx.x; i < e.biased; i += ROW_THREADS) {
    u32 token = e.bias[i].token;
    if (token < vocab && (i == 0 || e.bias[i - 1].token != token)) x[token] = e.undo[i];
  }
}

// Mean of (value - best) * sharpness, weighted by mass, over the list or the row. A sum of whole
// numbers, 2^-10 of a mass each: the order does not matter, and 2^19 of them fit.
DI float mean_of(const Choice& c, bool listed, u32 n, const Room& s) {
  u64 sum = 0, mass = 0;
  auto add = [&](u32 id, float x) {
    u32 key;
    float far;
    u64 weight = weigh(c, TYPICAL, id, x, key, far);
    if (weight == 0) return;
    float z = __fmul_rn(__fsub_rn(x, c.best), c.sharpness);
    sum += (u64)(i64)(__fmul_rn(z, (float)weight) * 1024.0f);
    mass += weight;
  };
  if (listed) {
    for (u32 e = threadIdx.x; e < n; e += ROW_THREADS)
      if (s.list[e] != NOTHING) add((u32)s.list[e], value(c.row, (u32)s.list[e]));
  } else {
    each<2>(c.row, add);
  }
  sum = total_of(sum, s);
  mass = total_of(mass, s);
  return (float)((double)(i64)sum / 1024.0 / (double)mass);
}

DI u32 draw(const Row& row, const Sampler& how, u32 position, const Room& s) {
  Best best = best_of(row, s);
  if (!usable(best.first)) return NO_TOKEN;
  if (how.temperature == 0) return (u32)best.first;
  Choice c{row, key_logit((u32)(best.first >> 32)), how.sharpness, how.min_p, 0, KEEPS_ALL, KEEPS_ALL, KEEPS_ALL};
  bool limited = how.top_k > 0 && how.top_k < row.vocab, listed = false;
  u32 n = 0;
  if (limited && how.top_k <= SHORT_MAX) {
    // Where a mask leaves a few, -inf would make candidates of all the others.
    n = shortlist(row, best.own, how.top_k, LOWEST_KEY - 1, s);
    listed = n <= LIST;
  }
  for (u32 cut = TOP_K; cut <= TYPICAL; cut++) {
    Goal goal{cut == TOP_P ? how.top_p : how.typical_p, cut == TOP_K ? how.top_k : 0};
    if (cut == TOP_K ? !limited : goal.share >= 1) continue;
    if (cut == TYPICAL) c.mean = mean_of(c, listed, n, s);
    if (listed) n = cut_list(c, cut, goal, n, s);
    else listed = cut_row(c, cut, goal, n, s);
  }
  u64 share = random_bits(how.seed, position);
  return listed ? draw_list(c, share, n, s) : draw_row(c, share, s);
}

KERNEL(sample_rows, SampleArgs, 512, 1) {
  ROOM(room);
  SHARED_ARRAY(float, undo, BIAS_MAX + BANNED_MAX);
  SHARED_ARRAY(Sampler, shared_how, 1);
  SHARED_ARRAY(Penalties, penalties, 1);
  if (blockIdx.x >= *at<const u32>(a.count)) return;
  SampleRow own = at<const SampleRow>(a.rows)[blockIdx.x];
  // Shared: registers are what walks over the row need most.
  if (threadIdx.x == 0) {
    const Sampler& kept = at<const Sampler>(a.samplers)[own.slot];
    shared_how[0] = kept;
    penalties[0] = Penalties{kept.repetition, kept.presence, kept.frequency};
  }
  __syncthreads();
  const Sampler& how = shared_how[0];
  float* x = at<float>(a.logits) + (u64)blockIdx.x * a.vocab;
  u16* counts = how.penalized ? at<u16>(a.counts) + (u64)own.slot * a.counts_stride : nullptr;
  u32 bans = own.position < how.banned_until ? how.banned : 0;
  Edits edits{at<const Bias>(a.bias) + (u64)own.slot * BIAS_MAX, at<const u32>(a.banned) + own.slot * BANNED_MAX,
              how.bias, bans, undo};
  bool edited = how.bias + bans > 0;
  if (edited) edit(x, a.vocab, edits);
  const u32* mask = own.mask == NO_MASK ? nullptr : at<const u32>(a.masks) + (u64)own.mask * a.mask_words;
  Row row{x, counts, mask, a.vocab, penalties};
  u32 token = draw(row, how, own.position, room);
  if (edited && own.keep) restore(x, a.vocab, edits);
  if (threadIdx.x > 0) return;
  *at<u32>(a.results + own.result) = token;
  if (token == NO_TOKEN) return;
  at<u32>(a.last)[own.slot] = token;
  if (counts && (counts[token] & 0x7fff) != 0x7fff) counts[token]++;
}
