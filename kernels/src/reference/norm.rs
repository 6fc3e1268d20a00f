//! Norms of one row.

use crate::compute::NormKind;

/// `x` over its root mean square, or less its mean and over its deviation, times weight, plus
/// bias; all `[width]`.
#[must_use]
pub fn norm(kind: NormKind, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|&x| f64::from(x)).sum::<f64>() / n,
    };
    let squares: f64 = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    let divisor = (squares / n + f64::from(eps)).sqrt();
    let bias = |i: usize| bias.map_or(0.0, |b| f64::from(b[i]));
    let one = |i: usize| (f64::from(x[i]) - mean) / divisor * f64::from(weight[i]) + bias(i);
    (0..x.len()).map(|i| one(i) as f32).collect()
}
