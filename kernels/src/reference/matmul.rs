//! Matrix products as plain loops.

use crate::MatrixPart;

use super::dequant;

/// `out[r][o] = sum_k w[o][k] * x[r][k] + bias[o]`, summed in f64. `x` is `[rows, cols]`, `out`
/// `[rows, features]` with the features of all parts one after the other.
///
/// # Panics
/// Sizes that do not fit.
pub fn matmul(x: &[f32], parts: &[MatrixPart<'_>], bias: Option<&[f32]>, out: &mut [f32]) {
    let features: usize = parts.iter().map(|p| p.rows).sum();
    let cols = parts[0].cols;
    let mut weights = vec![0.0; cols];
    let mut feature = 0;
    for part in parts {
        for bytes in part.bytes.chunks_exact(part.format.row_bytes(cols)).take(part.rows) {
            dequant::row(part.format, bytes, &mut weights);
            for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(features)) {
                let sum: f64 = x.iter().zip(&weights).map(|(&x, &w)| product(x, w)).sum();
                out[feature] = (sum + bias.map_or(0.0, |b| f64::from(b[feature]))) as f32;
            }
            feature += 1;
        }
    }
}

fn product(a: f32, b: f32) -> f64 {
    f64::from(a) * f64::from(b)
}
