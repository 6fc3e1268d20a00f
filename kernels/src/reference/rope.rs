//! Rotary position embedding of one head.

use crate::compute::{Beyond, Rope};

/// Inverse frequencies of a sequence of so many tokens.
#[must_use]
pub fn frequencies(rope: &Rope, sequence: u32) -> Vec<f32> {
    match &rope.beyond {
        Some(Beyond::Long { limit, inv_freq }) if sequence > *limit => inv_freq.clone(),
        Some(Beyond::Dynamic { limit, theta, factor }) if sequence > *limit => {
            let dim = 2.0 * rope.inv_freq.len() as f64;
            let (factor, limit) = (f64::from(*factor), f64::from(*limit));
            let stretch = factor * f64::from(sequence) / limit - (factor - 1.0);
            let base = (f64::from(*theta) * stretch.powf(dim / (dim - 2.0))) as f32;
            let power = |i| base.powf((2 * i) as f32 / dim as f32);
            (0..rope.inv_freq.len()).map(|i| 1.0 / power(i)).collect()
        }
        _ => rope.inv_freq.clone(),
    }
}

/// Turns the first `2 * inv_freq.len()` dimensions of a head for its position in a sequence of so
/// many tokens. Angles are f32 products, as in the models' own code.
pub fn rotate(head: &mut [f32], rope: &Rope, position: u32, sequence: u32) {
    let pairs = rope.inv_freq.len();
    for (i, inv_freq) in frequencies(rope, sequence).iter().enumerate() {
        let angle = f64::from(position as f32 * inv_freq);
        let (low, high) = if rope.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let (a, b) = (f64::from(head[low]), f64::from(head[high]));
        let (sin, cos) = angle.sin_cos();
        let magnitude = f64::from(rope.magnitude);
        head[low] = ((a * cos - b * sin) * magnitude) as f32;
        head[high] = ((b * cos + a * sin) * magnitude) as f32;
    }
}
