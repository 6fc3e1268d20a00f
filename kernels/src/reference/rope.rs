//! Rotary position embedding of one head.

use crate::compute::Rope;

/// Turns the first `2 * inv_freq.len()` dimensions of a head for its position. Angles are f32
/// products, as in the models' own code.
pub fn rotate(head: &mut [f32], rope: &Rope, position: u32) {
    let pairs = rope.inv_freq.len();
    for (i, inv_freq) in rope.inv_freq.iter().enumerate() {
        let angle = f64::from(position as f32 * inv_freq);
        let (low, high) = if rope.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let (a, b) = (f64::from(head[low]), f64::from(head[high]));
        let (sin, cos) = angle.sin_cos();
        let magnitude = f64::from(rope.magnitude);
        head[low] = ((a * cos - b * sin) * magnitude) as f32;
        head[high] = ((b * cos + a * sin) * magnitude) as f32;
    }
}
