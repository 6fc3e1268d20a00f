//! Random weights in the formats that are measured: values near N(0, 0.02), as trained models have
//! them, so that activations stay in range. Never zeros: a device that multiplies those draws less
//! power and runs faster.

use kernels::{Format, quantize};

/// Standard deviation of weights.
pub(super) const DEVIATION: f32 = 0.02;

/// Of 8-bit floats, for every block, so that a row has one scale: the largest, 448, is then six
/// deviations away.
const F8_SCALE: f32 = DEVIATION * 6.0 / 448.0;
/// Of 4-bit codes: 15 steps are about five deviations.
const U4_SCALE: f32 = DEVIATION / 3.0;
const U4_ZERO: u8 = 8;

/// Numbers that look random and are the same in every run (xorshift64*, Vigna 2016).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// About normal, of deviation 1: four uniform numbers of 16 bits.
    pub(super) fn normal(&mut self) -> f32 {
        let bits = self.next();
        let parts = (0..4).map(|part| (bits >> (16 * part) & 0xffff) as f32 / 65536.0 - 0.5);
        parts.sum::<f32>() * 3.0_f32.sqrt()
    }
}

/// Fills `out` with whole blocks.
///
/// # Panics
/// `out` is not made of whole blocks, or the format is none of those that random weights have.
pub(super) fn fill(format: Format, random: &mut Random, out: &mut [u8]) {
    assert!(out.len().is_multiple_of(format.block_bytes()), "whole blocks of {format:?}");
    let floats = f8_values();
    let mut values = vec![0.0; format.block_len()];
    for block in out.chunks_exact_mut(format.block_bytes()) {
        values.iter_mut().for_each(|value| *value = DEVIATION * random.normal());
        match format {
            Format::F8E4M3(_) => {
                block[..4].copy_from_slice(&F8_SCALE.to_le_bytes());
                let codes = block[4..].iter_mut().zip(&values);
                codes.for_each(|(code, value)| *code = f8(&floats, value / F8_SCALE));
            }
            Format::U4(_) => {
                block[..4].copy_from_slice(&U4_SCALE.to_le_bytes());
                block[4..8].copy_from_slice(&[U4_ZERO, 0, 0, 0]);
                let code = |value: f32| {
                    (value / U4_SCALE + f32::from(U4_ZERO)).round().clamp(0.0, 15.0) as u8
                };
                for (pair, values) in block[8..].iter_mut().zip(values.chunks_exact(2)) {
                    *pair = code(values[0]) | code(values[1]) << 4;
                }
            }
            _ => quantize::row(format, &values, block),
        }
    }
}

/// Values of the codes 0 to 126 of e4m3, ascending; 127 is no number.
fn f8_values() -> Vec<f32> {
    let value = |code: i32| {
        let (exponent, fraction) = (code >> 3, (code & 7) as f32 / 8.0);
        if exponent == 0 { fraction / 64.0 } else { (1.0 + fraction) * 2_f32.powi(exponent - 7) }
    };
    (0..127).map(value).collect()
}

/// The nearest code.
fn f8(values: &[f32], value: f32) -> u8 {
    let size = value.abs();
    let above = values.partition_point(|known| *known < size).clamp(1, values.len() - 1);
    let down = size - values[above - 1] < values[above] - size;
    let code = if down { above - 1 } else { above };
    code as u8 | u8::from(value < 0.0) << 7
}

#[cfg(test)]
mod tests {
    use kernels::Group;

    use super::*;

    #[test]
    fn weights_are_normal_in_every_format() {
        let g = Group::G128;
        for format in [Format::Bf16, Format::F8E4M3(g), Format::U4(g), Format::Q8_0, Format::Q4K] {
            let elements = 1 << 16;
            let mut bytes = vec![0; format.row_bytes(elements)];
            fill(format, &mut Random::new(1), &mut bytes);
            let mut values = vec![0.0; elements];
            kernels::reference::dequant::row(format, &bytes, &mut values);
            let mean = values.iter().sum::<f32>() / elements as f32;
            let square = values.iter().map(|value| value * value).sum::<f32>() / elements as f32;
            assert!(mean.abs() < 3e-4, "{format:?}: mean {mean}");
            assert!(
                (square.sqrt() / DEVIATION - 1.0).abs() < 0.03,
                "{format:?}: {}",
                square.sqrt()
            );
            let zeros = values.iter().filter(|value| **value == 0.0).count();
            assert!(zeros < elements / 4, "{format:?}: {zeros} zeros");
        }
    }
}
