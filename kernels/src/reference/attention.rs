//! Causal attention of one query head.

use crate::compute::Attention;

/// The output `[head_dim]` of a query at `position`; `keys` and `values` are those of positions
/// `0..=position` of its kv head, as the cache holds them.
#[must_use]
pub fn attention(
    q: &[f32],
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    position: usize,
    how: &Attention,
) -> Vec<f32> {
    let from = how.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
    let dot = |k: &[f32]| q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let score = |j: usize| {
        let score = dot(&keys[j]) * f64::from(how.scale);
        how.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let scores: Vec<f64> = (from..=position).map(score).collect();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
    let total: f64 = weights.iter().sum();
    let sum = |i: usize| -> f64 {
        weights.iter().zip(&values[from..]).map(|(w, v)| w * f64::from(v[i])).sum()
    };
    (0..q.len()).map(|i| (sum(i) / total) as f32).collect()
}
