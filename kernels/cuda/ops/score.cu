// Log-probabilities of rows of logits as the model made them: of one token, its rank, and of the
// most probable ones.
//
// One block a row: a walk for the greatest, one for the sum of e^(x - best) and the rank, one that
// lists the best. The sum is one of whole numbers of 2^-40: exact in any order, and as good as f64.
#include "cut.cuh"

struct ScoreArgs {
  u64 logits;   // f32 [.., vocab]
  u64 count;    // u32: real entries of the list
  u64 rows;     // ScoreRow [count]
  u64 results;  // bytes: tokens and Scores
  u32 vocab;
  u32 drawn;    // 1: `token` is where the drawn token stands in the results
};

struct ScoreRow {
  u32 row;     // of the logits
  u32 token;   // see `drawn`
  u32 top;     // alternatives, vocab at most
  u32 result;  // where the score goes, in bytes
};

struct Score {
  u32 token;
  u32 rank;  // from 1; 0: there is none
  float logprob;
  u32 pad;
  // then `top` pairs of a token and its log-probability, best first
};

constexpr u32 TOP_MAX = 128;
constexpr u32 UNITS = 40;

KERNEL(score_rows, ScoreArgs, 512, 1) {
  ROOM(s);
  if (blockIdx.x >= *at<const u32>(a.count)) return;
  ScoreRow own = at<const ScoreRow>(a.rows)[blockIdx.x];
  Row row{at<const float>(a.logits) + (u64)own.row * a.vocab, nullptr, nullptr, a.vocab, nullptr};
  u32 token = a.drawn ? *at<const u32>(a.results + own.token) : own.token;
  Score* score = at<Score>(a.results + own.result);
  Best best = best_of(row, s);
  if (token >= a.vocab || !usable(best.first)) {
    if (threadIdx.x == 0) *score = Score{0, 0, as_float(0x7fc00000u), 0};
    return;
  }
  float greatest = key_logit((u32)(best.first >> 32)), logit = row.x[token];
  u64 sum = 0, before = 0, mine = candidate(logit_key(logit), token);
  each<2>(row, [&](u32 i, float x) {
    sum += mass_of<UNITS>(__fsub_rn(x, greatest), 0);
    before += candidate(logit_key(x), i) < mine;
  });
  sum = total_of(sum, s);
  before = total_of(before, s);
  double log_sum = 0;
  if (threadIdx.x < TOP_MAX) log_sum = log((double)sum / (double)(1ull << UNITS)) + (double)greatest;
  if (threadIdx.x == 0) *score = Score{token, (u32)before + 1, (float)((double)logit - log_sum), 0};
  if (own.top == 0) return;
  u32 n = shortlist(row, best.own, own.top, LOWEST_KEY, s);
  if (n > LIST) {
    // Too many are alike.
    Choice c{row, greatest, 1, 0, 0, KEEPS_ALL, KEEPS_ALL, KEEPS_ALL};
    cut_row(c, TOP_K, Goal{0, own.top}, n, s);
  }
  sort(s, n);
  U2* top = at<U2>(a.results + own.result + sizeof(Score));
  for (u32 e = threadIdx.x; e < own.top; e += ROW_THREADS) {
    u32 id = (u32)s.list[e];
    top[e] = U2{id, as_bits((float)((double)row.x[id] - log_sum))};
  }
}
