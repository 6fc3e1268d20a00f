//! Codes of the formats that name several elements at once: points of a grid, or five ternary
//! digits to a byte. Each element gets a code of its own: the digit of its level, and above it
//! the sign or the shift (see `super::table`).

use super::GROUP;
use crate::Format;
use crate::format::grids;

/// Codes of group `group` of a block.
pub(crate) fn codes(format: Format, block: &[u8], group: usize) -> [u8; GROUP] {
    let mut out = [0; GROUP];
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        match format {
            Format::Iq2Xxs => {
                let point = usize::from(block[2 + 8 * group + i]);
                let signs = grids::signs((word(block, 6 + 8 * group) >> (7 * i) & 127) as u8);
                write(grids::IQ2_XXS[point], signs, 2, out);
            }
            Format::Iq2Xs => {
                let code = short(block, 2 + 8 * group + 2 * i);
                let point = grids::IQ2_XS[usize::from(code & 511)];
                write(point, grids::signs((code >> 9) as u8), 2, out);
            }
            Format::Iq2S => {
                let high = usize::from(block[66 + group] >> (2 * i) & 3) << 8;
                let point = grids::IQ2_S[usize::from(block[2 + 4 * group + i]) | high];
                write(point, block[34 + 4 * group + i], 2, out);
            }
            Format::Iq3Xxs => {
                let four = |i: usize| grids::IQ3_XXS[usize::from(block[2 + 8 * group + i])];
                let signs = grids::signs((word(block, 66 + 4 * group) >> (7 * i) & 127) as u8);
                write(join(four(2 * i), four(2 * i + 1)), signs, 3, out);
            }
            Format::Iq3S => {
                let four = |i: usize| {
                    let high = usize::from(block[66 + group] >> i & 1) << 8;
                    grids::IQ3_S[usize::from(block[2 + 8 * group + i]) | high]
                };
                let signs = block[74 + 4 * group + i];
                write(join(four(2 * i), four(2 * i + 1)), signs, 3, out);
            }
            Format::Iq1S => {
                let high = usize::from(short(block, 34 + 2 * group) >> (3 * i) & 7) << 8;
                out.copy_from_slice(&grids::IQ1[usize::from(block[2 + 4 * group + i]) | high]);
            }
            Format::Iq1M => {
                let high = usize::from(eighth(block, 4 * group + i) & 7) << 8;
                let point = grids::IQ1[usize::from(block[4 * group + i]) | high];
                write(point, if eighth(block, 4 * group + i) > 7 { 255 } else { 0 }, 2, out);
            }
            Format::Tq1_0 => {
                for (j, out) in out.iter_mut().enumerate() {
                    *out = ternary(block, GROUP * group + 8 * i + j);
                }
            }
            _ => unreachable!("no points in {format:?}"),
        }
    }
    out
}

/// The shifts of `Iq1M`: bit i is for the codes 8i..8i+8.
pub(crate) fn deltas(block: &[u8]) -> u32 {
    (0..32).fold(0, |word, e| word | u32::from(eighth(block, e) >> 3) << e)
}

/// The sub-scales, of which there are 8 or 16, twice what the format says where that is a half.
pub(crate) fn sub_scales(format: Format, block: &[u8]) -> [u8; 16] {
    let nibble = |at: usize, i: usize| block[at + i / 2] >> (i % 2 * 4) & 15;
    std::array::from_fn(|i| match format {
        Format::Iq2Xs => 2 * nibble(66, i) + 1,
        Format::Iq2S => 2 * nibble(74, i) + 1,
        Format::Iq1M => 2 * (short(block, 48 + i / 4 * 2) >> (i % 4 * 3) & 7) as u8 + 1,
        _ if i >= 8 => 0,
        Format::Iq2Xxs => 2 * (word(block, 6 + 8 * i) >> 28) as u8 + 1,
        Format::Iq3Xxs => 2 * (word(block, 66 + 4 * i) >> 28) as u8 + 1,
        Format::Iq3S => 2 * nibble(106, i) + 1,
        Format::Iq1S => {
            let both = short(block, 34 + 2 * i);
            (2 * (both >> 12 & 7) as u8 + 1) | (both >> 15 << 7) as u8
        }
        _ => unreachable!("no sub-scales in {format:?}"),
    })
}

/// The f16 of `Iq1M`, four bits to each short of its sub-scales.
pub(crate) fn scattered_half(block: &[u8]) -> [u8; 2] {
    (0..4).fold(0, |all, i| all | short(block, 48 + 2 * i) >> 12 << (4 * i)).to_le_bytes()
}

/// Digits with the signs of eight bits above them.
fn write(digits: [u8; 8], signs: u8, bit: u32, out: &mut [u8]) {
    for (i, (out, digit)) in out.iter_mut().zip(digits).enumerate() {
        *out = digit | (signs >> i & 1) << bit;
    }
}

fn join(low: [u8; 4], high: [u8; 4]) -> [u8; 8] {
    std::array::from_fn(|i| if i < 4 { low[i] } else { high[i - 4] })
}

/// Four bits of `Iq1M`: three of a point, one of its shift.
fn eighth(block: &[u8], e: usize) -> u8 {
    block[32 + e / 2] >> (e % 2 * 4) & 15
}

fn ternary(block: &[u8], i: usize) -> u8 {
    let (byte, digit) = match i {
        0..160 => (i % 32, i / 32),
        160..240 => (32 + i % 16, i / 16 - 10),
        _ => (48 + i % 4, i / 4 - 60),
    };
    let shifted = block[byte].wrapping_mul([1, 3, 9, 27, 81][digit]);
    ((u16::from(shifted) * 3) >> 8) as u8
}

fn short(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
