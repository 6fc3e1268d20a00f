//! Mixtures of experts of one row as plain loops.

use crate::compute::{RouterGroups, RouterScore};

/// How a row chooses, as [`crate::Router`] says, with the correction as numbers.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Experts per row.
    pub top_k: usize,
    /// From logits to scores.
    pub score: RouterScore,
    /// `[experts]`, added for choosing only.
    pub correction: Option<Vec<f32>>,
    /// Restriction to groups.
    pub groups: Option<RouterGroups>,
    /// Chosen scores are divided by their sum.
    pub normalise: bool,
    /// Multiplies the weights at the end.
    pub scale: f32,
}

/// The experts of a row of `logits` `[experts]` with their weights, best first.
#[must_use]
pub fn route(logits: &[f32], how: &Choice) -> Vec<(usize, f64)> {
    let scores = scores(logits, how.score);
    let correction = |e: usize| how.correction.as_ref().map_or(0.0, |c| f64::from(c[e]));
    let keys: Vec<f64> = scores.iter().enumerate().map(|(e, s)| s + correction(e)).collect();
    let mut open = vec![true; keys.len()];
    if let Some(groups) = how.groups {
        let size = keys.len() / groups.count;
        let score = |group: usize| {
            let mut keys = keys[group * size..][..size].to_vec();
            keys.sort_by(|a, b| b.total_cmp(a));
            let best = if groups.two_best { 2 } else { 1 };
            keys.iter().take(best).sum::<f64>()
        };
        let of_groups: Vec<f64> = (0..groups.count).map(score).collect();
        open.fill(false);
        for group in best(&of_groups, groups.kept) {
            open[group * size..][..size].fill(true);
        }
    }
    let closed = |e: usize| if open[e] { keys[e] } else { f64::NEG_INFINITY };
    let chosen = best(&(0..keys.len()).map(closed).collect::<Vec<_>>(), how.top_k);
    let sum: f64 = chosen.iter().map(|&e| scores[e]).sum();
    let by = if how.normalise { sum + 1e-20 } else { 1.0 };
    chosen.into_iter().map(|e| (e, scores[e] / by * f64::from(how.scale))).collect()
}

fn scores(logits: &[f32], score: RouterScore) -> Vec<f64> {
    let logits = logits.iter().map(|&x| f64::from(x));
    match score {
        RouterScore::Sigmoid => logits.map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        RouterScore::Softmax => {
            let best = logits.clone().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.map(|x| (x - best).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|p| p / sum).collect()
        }
    }
}

/// The indices of the `n` greatest, best first, ties by the smaller index.
fn best(keys: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|&a, &b| keys[b].total_cmp(&keys[a]).then(a.cmp(&b)));
    order.truncate(n);
    order
}
