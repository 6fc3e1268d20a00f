//! The table of angles, near and far out, and of sequences beyond a rope's limit.

use kernels::{Beyond, CacheElement, CacheShape, CacheValues, Compute, Kept, Precision, Rope};
use kernels::{Segment, Step, reference};

use super::{Bench, Open, Outcome, config};
use crate::gpu::Gpu;

/// First positions and lengths of the segments: one element of the table each would do, but a
/// bucket's padding shows only with more.
const PARTS: [(u32, u32); 4] = [(0, 3), (60, 9), (4095, 1), (131_069, 3)];

fn ropes() -> Vec<Rope> {
    let plain = |pairs: usize, theta: f32| Rope {
        inv_freq: (0..pairs).map(|i| theta.powf(-(i as f32) / pairs as f32)).collect(),
        magnitude: 1.0,
        interleaved: false,
        beyond: None,
    };
    let long = |limit| Beyond::Long { limit, inv_freq: (0..48).map(|i| 0.7 / i as f32).collect() };
    let dynamic = |limit, factor| Beyond::Dynamic { limit, theta: 10_000.0, factor };
    vec![
        plain(64, 10_000.0),
        plain(1, 10_000.0),
        plain(150, 5e5),
        Rope { magnitude: 1.19, beyond: Some(long(64)), ..plain(48, 1e4) },
        Rope { beyond: Some(dynamic(64, 2.0)), ..plain(32, 1e4) },
        Rope { beyond: Some(dynamic(4096, 8.0)), ..plain(64, 1e4) },
    ]
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    ropes().iter().map(|rope| one(open, rope)).collect()
}

fn one<G: Gpu>(open: Open<'_, G>, rope: &Rope) -> Outcome {
    let (mut segments, mut want) = (Vec::new(), Vec::new());
    let mut row = 0;
    for (slot, (first, len)) in PARTS.into_iter().enumerate() {
        segments.push(Segment { slot: slot as u32, first, len, row, late: false, adapter: 0 });
        row += len;
        for position in first..first + len {
            let angles: Vec<f64> = reference::rope::frequencies(rope, position + 1)
                .iter()
                .map(|inv_freq| f64::from(position as f32 * inv_freq))
                .collect();
            let magnitude = f64::from(rope.magnitude);
            want.extend(angles.iter().map(|angle| (angle.cos() * magnitude) as f32));
            want.extend(angles.iter().map(|angle| (angle.sin() * magnitude) as f32));
        }
    }
    let rows = row as usize;
    let mut device = open(config(Precision::Bfloat16, rows));
    let shape = CacheShape {
        layers: 1,
        pages: 1,
        page_tokens: 16,
        kv_heads: 1,
        head_dim: 8,
        values: CacheValues::Own,
        element: CacheElement::Bf16,
        slots: 4,
        pages_per_slot: 1,
    };
    let mut cache = device.cache(shape).expect("memory");
    let mut out = device.blank(rows, 2 * rope.inv_freq.len(), Kept::Exact);
    let tokens = vec![0; rows];
    device.begin(Step { tokens: &tokens, segments: &segments, grants: &[] }, &mut cache);
    device.rope_table(rope, &mut out);
    device.finish();
    let name = format!("rope_table of {} pairs, {:?}", rope.inv_freq.len(), rope.beyond.is_some());
    // An angle within a turn is rounded to f32; a sine and the product with the magnitude follow.
    Outcome::of(name, &device.get(&out, rows), &want, 1.0, 4.0 * f32::EPSILON)
}

#[cfg(test)]
mod tests {
    use crate::cases::pages::check;
    use crate::emulator::Emulator;

    #[test]
    fn equals_the_reference() {
        check(super::cases, Emulator::new);
    }
}
