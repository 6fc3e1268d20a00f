//! Formats whose codes are looked up one by one (`Iq4*`, `Mxfp4`, `Nf4`, `Fp4`), 8-bit floats, and
//! codes with a scale and a zero point.

use super::half;
use crate::Format;
use crate::format::grids;

/// Low halves of 16 bytes, then their high halves.
fn code(bytes: &[u8], i: usize) -> usize {
    usize::from(if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

pub(super) fn iq4(format: Format, block: &[u8], out: &mut [f32]) {
    let (d, codes) = (half(block, 0), if format == Format::Iq4Nl { 2 } else { 8 });
    for (g, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = if format == Format::Iq4Nl {
            d
        } else {
            let low = block[4 + g / 2] >> (g % 2 * 4) & 15;
            let high = block[2 + g / 4] >> (g % 4 * 2) & 3;
            d * (i32::from(low | high << 4) - 32) as f32
        };
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(grids::IQ4_LEVELS[code(&block[codes + 16 * g..], i)]);
        }
    }
}

pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    // 2^(e - 127), and half of that because levels are doubled. The largest exponent is a number
    // like the others, as in GGML.
    let scale = 2_f64.powi(i32::from(block[0]) - 128);
    for (i, out) in out.iter_mut().enumerate() {
        *out = (scale * f64::from(grids::E2M1_LEVELS[code(&block[1..], i)])) as f32;
    }
}

fn single(block: &[u8]) -> f32 {
    f32::from_le_bytes([block[0], block[1], block[2], block[3]])
}

pub(super) fn grouped(bits: usize, block: &[u8], out: &mut [f32]) {
    let zero = u16::from_le_bytes([block[4], block[5]]);
    for (i, out) in out.iter_mut().enumerate() {
        let bit = |b: usize| i32::from(block[8 + b / 8] >> (b % 8) & 1);
        let code: i32 = (0..bits).map(|b| bit(bits * i + b) << b).sum();
        *out = single(block) * (code - i32::from(zero)) as f32;
    }
}

pub(super) fn f8_e4m3(block: &[u8], out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(&block[4..]) {
        *out = single(block) * e4m3(code);
    }
}

/// An 8-bit float of the "fn" kind: finite but for NaN.
#[must_use]
pub(crate) fn e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2_f32.powi(-6),
        _ => (1.0 + fraction) * 2_f32.powi(exponent - 7),
    };
    if code >> 7 == 1 { -size } else { size }
}

pub(super) fn four_bit_float(table: &[f32; 16], block: &[u8], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = single(block) * table[usize::from(block[4 + i / 2] >> (4 - i % 2 * 4) & 15)];
    }
}
