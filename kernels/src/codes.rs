//! What quantized blocks hold, taken apart: a code for each element, a scale and an offset for
//! each group. Every format of integer or table codes comes out alike, so that a device packs them
//! as its kernels want them without knowing how a file keeps them.
//!
//! The other reader of blocks, `reference::dequant`, shares no code with this one: tests hold one
//! against the other. 8-bit floats and plain numbers have no codes.

use half::f16;

use crate::Format;
use crate::format::grids::{self, E2M1_LEVELS, IQ2_LEVELS, IQ3_XXS_LEVELS, IQ4_LEVELS};

pub(crate) mod blocks;
pub(crate) mod points;

/// Codes that are taken out at once: every block is whole groups of so many.
pub const GROUP: usize = 32;

/// What is taken off beside the bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// Nothing: `w = scale * (value - bias)`.
    None,
    /// A whole number: `w = scale * (value - offset)`; the bias is 0.
    Zero,
    /// A number like the weights: `w = scale * (value - bias) - offset`.
    Minimum,
}

/// How weights come of a format's codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coding {
    /// Bits that hold a code: 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
    /// Elements that share a scale and an offset: 16, 32, 64, 128 or 256.
    pub group: usize,
    /// What a value is relative to.
    pub bias: f32,
    /// What codes stand for; `None`: themselves. Whole numbers but for `Nf4` and `Fp4`.
    pub table: Option<[f32; 16]>,
    /// What is taken off.
    pub offset: Offset,
}

/// Scales and offsets of a block, of which the first `block_len / group` are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Multiply values.
    pub scales: [f32; 16],
    /// Zero where the coding has none.
    pub offsets: [f32; 16],
}

impl Scales {
    /// None yet.
    pub const ZERO: Self = Self { scales: [0.0; 16], offsets: [0.0; 16] };
}

/// How a format's codes are read; `None`: it has none.
#[must_use]
pub fn coding(format: Format) -> Option<Coding> {
    let (bits, group, bias, offset) = match format {
        Format::F32 | Format::F16 | Format::Bf16 | Format::F8E4M3(_) => return None,
        Format::Q4_0 => (4, 32, 8.0, Offset::None),
        Format::Q4_1 | Format::Q4K => (4, 32, 0.0, Offset::Minimum),
        Format::Q5_0 => (5, 32, 16.0, Offset::None),
        Format::Q5_1 | Format::Q5K => (5, 32, 0.0, Offset::Minimum),
        Format::Q8_0 => (8, 32, 128.0, Offset::None),
        Format::Q2K => (2, 16, 0.0, Offset::Minimum),
        Format::Q3K => (3, 16, 4.0, Offset::None),
        Format::Q6K => (6, 16, 32.0, Offset::None),
        Format::Iq2Xs | Format::Iq2S | Format::Iq1M => (3, 16, 0.0, Offset::None),
        Format::Iq2Xxs | Format::Iq1S => (3, 32, 0.0, Offset::None),
        Format::Iq3Xxs | Format::Iq3S | Format::Iq4Nl | Format::Iq4Xs | Format::Mxfp4 => {
            (4, 32, 0.0, Offset::None)
        }
        Format::Tq1_0 | Format::Tq2_0 => (2, 256, 1.0, Offset::None),
        Format::U2(group) => (2, group.len(), 0.0, Offset::Zero),
        Format::U3(group) => (3, group.len(), 0.0, Offset::Zero),
        Format::U4(group) => (4, group.len(), 0.0, Offset::Zero),
        Format::U8(group) => (8, group.len(), 0.0, Offset::Zero),
        Format::Nf4 | Format::Fp4 => (4, 64, 0.0, Offset::None),
    };
    Some(Coding { bits, group, bias, table: table(format), offset })
}

/// The top bit of a code is its sign, where the format has signs apart; 1 is an eighth in `Iq1*`.
fn table(format: Format) -> Option<[f32; 16]> {
    let value = |code: usize| -> Option<i32> {
        let (three, two) = (code & 7, code & 3);
        let sign = |bit: usize| if code >> bit & 1 == 1 { -1 } else { 1 };
        Some(match format {
            Format::Iq4Nl | Format::Iq4Xs => i32::from(IQ4_LEVELS[code]),
            Format::Mxfp4 => i32::from(E2M1_LEVELS[code]),
            Format::Iq3Xxs => sign(3) * i32::from(IQ3_XXS_LEVELS[three]),
            Format::Iq3S => sign(3) * (2 * three as i32 + 1),
            Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S => {
                sign(2) * IQ2_LEVELS.get(two).map_or(0, |&level| i32::from(level))
            }
            Format::Iq1S | Format::Iq1M => 8 * (two as i32 - 1) + sign(2),
            _ => return None,
        })
    };
    match format {
        Format::Nf4 => Some(grids::NF4),
        Format::Fp4 => Some(grids::FP4),
        _ => value(0).map(|_| std::array::from_fn(|code| value(code).unwrap_or(0) as f32)),
    }
}

/// Codes of elements `32 * group..` of a block, each in a byte. With the format known when it is
/// compiled, this is a few vector instructions.
///
/// # Panics
/// A format without codes, or a block or group that is not there.
#[inline(always)]
#[must_use]
pub fn codes(format: Format, block: &[u8], group: usize) -> [u8; GROUP] {
    match format {
        // Files keep the first of two codes in the high half.
        Format::Nf4 | Format::Fp4 => {
            let bytes: &[u8; GROUP / 2] =
                block[4 + GROUP / 2 * group..].first_chunk().expect("a whole group");
            std::array::from_fn(|i| bytes[i / 2] >> (4 - i % 2 * 4) & 15)
        }
        Format::Iq1S => {
            let minus = block[35 + 2 * group] >> 7 << 2;
            points::codes(format, block, group).map(|code| code | minus)
        }
        _ => blocks::codes(format, block, group),
    }
}

/// The largest sub-scale of a format, and what its scale is multiplied by.
const fn sub_scale(format: Format) -> (f32, f32) {
    match format {
        Format::Q2K => (15.0, 1.0),
        Format::Q3K | Format::Iq4Xs => (32.0, 1.0),
        Format::Q4K | Format::Q5K => (63.0, 1.0),
        Format::Q6K => (128.0, 1.0),
        // Sub-scales are 2 s + 1 where the format says s + 1/2.
        Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S => (31.0, 0.125),
        Format::Iq3Xxs => (31.0, 0.25),
        Format::Iq3S => (31.0, 1.0),
        // A shift of 1/8 is 1 in the table.
        Format::Iq1S | Format::Iq1M => (15.0, 0.125),
        _ => (1.0, 1.0),
    }
}

/// A number that no finite scale or minimum of the block exceeds, and that is not much larger than
/// the largest of them. Zero points do not count. NaN or infinite where the block's own scale is.
#[inline(always)]
#[must_use]
pub fn bound(format: Format, block: &[u8]) -> f32 {
    let (most, factor) = sub_scale(format);
    let scale = match format {
        Format::U2(_)
        | Format::U3(_)
        | Format::U4(_)
        | Format::U8(_)
        | Format::Nf4
        | Format::Fp4 => single(block),
        Format::Mxfp4 => power(block[0]),
        Format::Q4_1 | Format::Q5_1 | Format::Q2K | Format::Q4K | Format::Q5K => {
            let d = half(blocks::scale(format, block)).abs();
            let minimum = half(blocks::minimum(format, block)).abs();
            // A NaN in either must show.
            if minimum > d || minimum.is_nan() { minimum } else { d }
        }
        _ => half(blocks::scale(format, block)),
    };
    scale.abs() * (most * factor)
}

/// Scales and offsets of a block.
///
/// # Panics
/// A format without codes, or no whole block.
#[inline(always)]
pub fn scales(format: Format, block: &[u8], out: &mut Scales) {
    let Scales { scales, offsets } = out;
    match format {
        Format::U2(_) | Format::U3(_) | Format::U4(_) | Format::U8(_) => {
            scales[0] = single(block);
            offsets[0] = f32::from(u16::from_le_bytes([block[4], block[5]]));
        }
        Format::Nf4 | Format::Fp4 => scales[0] = single(block),
        Format::Mxfp4 => scales[0] = power(block[0]),
        Format::Q4_0
        | Format::Q5_0
        | Format::Q8_0
        | Format::Iq4Nl
        | Format::Tq1_0
        | Format::Tq2_0 => scales[0] = half(blocks::scale(format, block)),
        Format::Q4_1 | Format::Q5_1 => {
            scales[0] = half(blocks::scale(format, block));
            // Files add it.
            offsets[0] = -half(blocks::minimum(format, block));
        }
        Format::Q2K | Format::Q4K | Format::Q5K => {
            let subs = blocks::sub_scales(format, block);
            let d = half(blocks::scale(format, block));
            let minimum = half(blocks::minimum(format, block));
            for i in 0..16 {
                let (sub, less) = match format {
                    Format::Q2K => (subs[i] & 15, subs[i] >> 4),
                    _ => (subs[i % 8], subs[8 + i % 8]),
                };
                (scales[i], offsets[i]) = (d * f32::from(sub), minimum * f32::from(less));
            }
        }
        _ => {
            let d = sub_scale(format).1 * half(blocks::scale(format, block));
            // The top bit of `Iq1S`'s is the sign of its shift, which codes have.
            let mask = if matches!(format, Format::Iq1S) { 0x7f } else { 0xff };
            let subs = blocks::sub_scales(format, block);
            *scales = subs.map(|sub| d * f32::from((sub & mask) as i8));
        }
    }
}

#[inline(always)]
fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

#[inline(always)]
fn single(block: &[u8]) -> f32 {
    f32::from_le_bytes([block[0], block[1], block[2], block[3]])
}

/// 2^(e - 127), and half of that because levels are doubled. The least are below f32's normal
/// numbers.
#[inline(always)]
fn power(e: u8) -> f32 {
    f64::from_bits((u64::from(e) + (1023 - 128)) << 52) as f32
}

#[cfg(test)]
mod tests;
