//! Attention of one query head.

use crate::compute::Attention;

/// The output, as long as a value, of a query at `position`; `keys` and `values` are those of the
/// whole sequence, as the cache holds them, and `sink` is the head's.
#[must_use]
pub fn attention<V>(
    q: &[f32],
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    position: usize,
    how: &Attention<'_, V>,
    sink: Option<f32>,
) -> Vec<f32> {
    let window = how.window.map_or(keys.len(), |w| w as usize);
    let from = (position + 1).saturating_sub(window);
    let to = if how.causal { position + 1 } else { keys.len().min(position + window) };
    let dot = |k: &[f32]| q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let score = |j: usize| {
        let score = dot(&keys[j]) * f64::from(how.scale);
        how.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let scores: Vec<f64> = (from..to).map(score).collect();
    let sink = sink.map_or(f64::NEG_INFINITY, f64::from);
    let best = scores.iter().copied().fold(sink, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
    let total = weights.iter().sum::<f64>() + (sink - best).exp();
    let sum = |i: usize| -> f64 {
        weights.iter().zip(&values[from..]).map(|(w, v)| w * f64::from(v[i])).sum()
    };
    (0..values[0].len()).map(|i| (sum(i) / total) as f32).collect()
}
