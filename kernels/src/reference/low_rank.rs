//! A low-rank addition to one row as plain loops.

/// `scale * up * (down * x)`, summed in f64: `x` is `[in]`, `down` `[rank, in]`, `up`
/// `[out, rank]`.
#[must_use]
pub fn low_rank(x: &[f32], down: &[f32], up: &[f32], scale: f32) -> Vec<f64> {
    let dot = |w: &[f32]| w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
    let inner: Vec<f64> = down.chunks_exact(x.len()).map(dot).collect();
    let outer = |w: &[f32]| w.iter().zip(&inner).map(|(&w, h)| f64::from(w) * h).sum::<f64>();
    up.chunks_exact(inner.len()).map(|w| f64::from(scale) * outer(w)).collect()
}
