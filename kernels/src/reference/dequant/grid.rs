//! The GGUF formats of which a code names several elements at once: points of a grid, with signs
//! (`Iq2*`, `Iq3*`) or a shift (`Iq1*`), and five ternary digits to a byte (`Tq1_0`).

use super::half;
use crate::Format;
use crate::format::grids;

fn short(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from(short(block, at)) | u32::from(short(block, at + 2)) << 16
}

/// Eight elements of scale x level with the signs of eight bits.
fn signed(scale: f32, levels: impl Fn(usize) -> u8, signs: u8, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let size = scale * f32::from(levels(i));
        *out = if signs >> i & 1 == 1 { -size } else { size };
    }
}

pub(super) fn iq2(format: Format, block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (e, out) in out.chunks_exact_mut(8).enumerate() {
        let (group, eighth) = (e / 4, e % 4);
        let (point, signs, scale) = match format {
            Format::Iq2Xxs => {
                let second = word(block, 2 + 8 * group + 4);
                let point = &grids::IQ2_XXS[usize::from(block[2 + 8 * group + eighth])];
                (point, grids::signs((second >> (7 * eighth) & 127) as u8), (second >> 28) as u8)
            }
            Format::Iq2Xs => {
                let code = short(block, 2 + 2 * e);
                let scale = block[66 + group] >> (eighth / 2 * 4) & 15;
                (&grids::IQ2_XS[usize::from(code & 511)], grids::signs((code >> 9) as u8), scale)
            }
            _ => {
                let high = usize::from(block[66 + group] >> (2 * eighth) & 3) << 8;
                let point = &grids::IQ2_S[usize::from(block[2 + e]) | high];
                (point, block[34 + e], block[74 + group] >> (eighth / 2 * 4) & 15)
            }
        };
        let scale = d * (0.5 + f32::from(scale)) * 0.25;
        signed(scale, |i| grids::IQ2_LEVELS[usize::from(point[i])], signs, out);
    }
}

pub(super) fn iq3(format: Format, block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (e, out) in out.chunks_exact_mut(8).enumerate() {
        let (group, eighth) = (e / 4, e % 4);
        if format == Format::Iq3Xxs {
            let second = word(block, 66 + 4 * group);
            let scale = d * (0.5 + (second >> 28) as f32) * 0.5;
            let point = |i: usize| grids::IQ3_XXS[usize::from(block[2 + 2 * e + i / 4])][i % 4];
            let signs = grids::signs((second >> (7 * eighth) & 127) as u8);
            signed(scale, |i| grids::IQ3_XXS_LEVELS[usize::from(point(i))], signs, out);
        } else {
            let scale = d * f32::from(1 + 2 * (block[106 + group / 2] >> (group % 2 * 4) & 15));
            let point = |i: usize| {
                let four = 2 * eighth + i / 4;
                let high = usize::from(block[66 + group] >> four & 1) << 8;
                grids::IQ3_S[usize::from(block[2 + 8 * group + four]) | high][i % 4]
            };
            signed(scale, |i| 2 * point(i) + 1, block[74 + e], out);
        }
    }
}

pub(super) fn iq1(format: Format, block: &[u8], out: &mut [f32]) {
    let d = if format == Format::Iq1S {
        half(block, 0)
    } else {
        // The scale's 16 bits are the high four of each of the shorts that hold sub-scales.
        let four = |i: usize| short(block, 48 + 2 * i) >> 12 << (4 * i);
        half::f16::from_bits(four(0) | four(1) | four(2) | four(3)).to_f32()
    };
    for (e, out) in out.chunks_exact_mut(8).enumerate() {
        let (group, eighth) = (e / 4, e % 4);
        let (high, scale, minus) = if format == Format::Iq1S {
            let both = short(block, 34 + 2 * group);
            (both >> (3 * eighth) & 7, both >> 12 & 7, both >> 15 == 1)
        } else {
            let high = block[32 + e / 2] >> (e % 2 * 4) & 15;
            let scale =
                short(block, 48 + group / 2 * 2) >> (6 * (group % 2) + 3 * (eighth / 2)) & 7;
            (u16::from(high & 7), scale, high >> 3 == 1)
        };
        let low = block[if format == Format::Iq1S { 2 + e } else { e }];
        let point = &grids::IQ1[usize::from(low) | usize::from(high) << 8];
        let scale = d * f32::from(2 * scale + 1);
        let shift = if minus { -0.125 } else { 0.125 };
        for (out, &digit) in out.iter_mut().zip(point) {
            *out = scale * (f32::from(digit) - 1.0 + shift);
        }
    }
}

/// Digits are the leading ternary digits of a fraction: byte / 256 is about 0.d0 d1 d2 d3 d4.
pub(super) fn tq1_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 52);
    for (i, out) in out.iter_mut().enumerate() {
        // 32 bytes of five digits each, 16 bytes of five, 4 bytes of four.
        let (byte, digit) = match i {
            0..160 => (i % 32, i / 32),
            160..240 => (32 + (i - 160) % 16, (i - 160) / 16),
            _ => (48 + (i - 240) % 4, (i - 240) / 4),
        };
        let shifted = block[byte].wrapping_mul([1, 3, 9, 27, 81][digit]);
        *out = d * f32::from(((i16::from(shifted) * 3) >> 8) - 1);
    }
}
