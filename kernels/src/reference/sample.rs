//! Draws and log-probabilities of one row, by sorting and in f64.
//!
//! A draw decides at thresholds (a mass reached, a weight too small); two correct versions that
//! round differently may disagree where a number lies on one. So a draw comes with its margin:
//! how far the nearest threshold was, as a share. Versions must agree on draws with a margin.

use std::cmp::Ordering;

use crate::compute::Sampler;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    /// (logit - best) / temperature.
    z: f64,
    weight: f64,
}

/// The logits that a draw at `position` sees: bias, then penalties, then bans, then the mask.
#[must_use]
pub fn prepared(
    logits: &[f32],
    sampler: &Sampler,
    prompt: &[u32],
    output: &[u32],
    position: u32,
    mask: Option<&[u32]>,
) -> Vec<f32> {
    let mut logits = logits.to_vec();
    for &(token, bias) in &sampler.logit_bias {
        logits[token as usize] += bias;
    }
    for (token, logit) in logits.iter_mut().enumerate() {
        let count = |list: &[u32]| list.iter().filter(|t| **t as usize == token).count();
        let made = count(output) as f32;
        if made > 0.0 || count(prompt) > 0 {
            let repetition = sampler.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        }
        if made > 0.0 {
            *logit -= sampler.presence_penalty + sampler.frequency_penalty * made;
        }
    }
    if position < sampler.banned_until {
        sampler.banned.iter().for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
    }
    if let Some(mask) = mask {
        for (token, logit) in logits.iter_mut().enumerate() {
            let allowed = mask[token / 32] >> (token % 32) & 1 == 1;
            *logit = if allowed || logit.is_nan() { *logit } else { f32::NEG_INFINITY };
        }
    }
    logits
}

fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).expect("no NaN").then(a.token.cmp(&b.token))
}

fn mass(list: &[Candidate]) -> f64 {
    list.iter().map(|c| c.weight).sum()
}

/// Keeps the first of a sorted list whose mass reaches `share` of all.
fn cut(list: &mut Vec<Candidate>, share: f32, distance: impl Fn(&Candidate) -> f64) -> f64 {
    let total = mass(list);
    let (mut sum, mut kept, mut margin) = (0.0, 0, f64::INFINITY);
    for c in &*list {
        kept += 1;
        sum += c.weight;
        margin = margin.min((sum / total - f64::from(share)).abs());
        if sum >= f64::from(share) * total {
            break;
        }
    }
    if let (Some(last), Some(next)) = (list.get(kept - 1), list.get(kept)) {
        // Two that are nearly alike may change places; the same logits may not.
        if last.logit != next.logit {
            margin = margin.min((distance(last) - distance(next)).abs());
        }
    }
    list.truncate(kept);
    margin
}

/// Draws from prepared logits with 64 random bits: the token, `None` when there is none, and the
/// margin.
#[must_use]
pub fn draw(logits: &[f32], sampler: &Sampler, bits: u64) -> (Option<u32>, f64) {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if logits.iter().any(|x| x.is_nan()) || !best.is_finite() {
        return (None, f64::INFINITY);
    }
    let candidate = |(token, &logit): (usize, &f32)| {
        let z = f64::from(logit - best) / f64::from(sampler.temperature);
        Candidate { token: token as u32, logit, z, weight: z.exp() }
    };
    let mut list: Vec<Candidate> = logits.iter().enumerate().map(candidate).collect();
    list.retain(|c| c.logit > f32::NEG_INFINITY);
    list.sort_by(by_logit);
    if sampler.temperature == 0.0 {
        return (Some(list[0].token), f64::INFINITY);
    }
    let mut margin = f64::INFINITY;
    if sampler.min_p > 0.0 {
        let min_p = f64::from(sampler.min_p);
        list.iter().for_each(|c| margin = margin.min((c.weight / min_p - 1.0).abs()));
        list.retain(|c| c.weight >= min_p);
    }
    if sampler.top_k > 0 {
        list.truncate(sampler.top_k as usize);
    }
    if sampler.top_p < 1.0 {
        margin = margin.min(cut(&mut list, sampler.top_p, |c| c.z));
    }
    if sampler.typical_p < 1.0 {
        let total = mass(&list);
        let mean = list.iter().map(|c| c.z * c.weight).sum::<f64>() / total;
        // -ln p is ln Z - z and the entropy is ln Z - mean.
        let distance = |c: &Candidate| (mean - c.z).abs();
        list.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.token.cmp(&b.token)));
        margin = margin.min(cut(&mut list, sampler.typical_p, distance));
    }
    list.sort_by_key(|c| c.token);
    let (total, mut sum) = (mass(&list), 0.0);
    let target = bits as f64 / 2f64.powi(64);
    let mut token = None;
    for c in &list {
        sum += c.weight / total;
        margin = margin.min((sum - target).abs());
        if token.is_none() && sum > target {
            token = Some(c.token);
        }
    }
    (token.or(list.last().map(|c| c.token)), margin)
}

/// Log-probability and rank (from 1) of a token, and the `top` most probable ones.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, top: usize) -> (f32, u32, Vec<(u32, f32)>) {
    let best = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - best).exp()).sum();
    let logprob = |x: f32| (f64::from(x) - best - sum.ln()) as f32;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |t: u32| logits[t as usize];
    order.sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).expect("no NaN").then(a.cmp(&b)));
    let rank = order.iter().position(|&t| t == token).expect("a token of the vocabulary") + 1;
    let best_of = order.iter().take(top).map(|&t| (t, logprob(logit(t)))).collect();
    (logprob(logit(token)), rank as u32, best_of)
}
