//! Log-probabilities of a row: of a token, its rank, and of the most probable tokens. They are
//! over the full vocabulary and of the logits as the model made them. The sum is taken in f64:
//! 150,000 terms of an f32 sum would lose three digits.

use super::candidates::better;
use super::isa::Isa;
use super::lanes::dispatch;
use super::sample::Scratch;
use super::scan::{ExpSum, Rank};
use crate::compute::Scored;

/// The normalisation of one row.
pub(crate) struct Scorer {
    isa: Isa,
    best: f32,
    /// ln of the sum of e^(x - best).
    log_sum: f64,
}

impl Scorer {
    /// Looks at a row and lists its `top` most probable tokens; `None` when it holds a NaN or
    /// +inf, or nothing but -inf.
    pub(crate) fn new(
        isa: Isa,
        x: &[f32],
        top: u32,
        scratch: &mut Scratch,
        scored: &mut Scored,
    ) -> Option<Self> {
        scored.top.clear();
        let best = scratch.maxima(isa, x).filter(|best| best.is_finite())?;
        let scorer = Self { isa, best, log_sum: dispatch(isa, ExpSum { x, best }).ln() };
        let top = (top as usize).min(x.len());
        if top > 0 {
            scratch.top_k(x, top, f32::NEG_INFINITY);
            let all = scratch.order.iter().map(|&id| (id, scorer.logprob(x[id as usize])));
            scored.top.extend(all);
            let pair = |id: u32| (id, x[id as usize]);
            scored.top.sort_unstable_by(|a, b| better(pair(a.0), pair(b.0)));
        }
        Some(scorer)
    }

    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.best) - self.log_sum) as f32
    }

    /// Fills in the token that stands at the position.
    pub(crate) fn about(&self, x: &[f32], token: u32, scored: &mut Scored) {
        let at = token as usize;
        scored.token = token;
        scored.logprob = self.logprob(x[at]);
        scored.rank = dispatch(self.isa, Rank { x, at }) as u32 + 1;
    }
}

/// A row that has no log-probabilities: rank 0, which no token has.
pub(crate) fn unknown(scored: &mut Scored) {
    (scored.token, scored.logprob, scored.rank) = (0, f32::NAN, 0);
    scored.top.clear();
}
