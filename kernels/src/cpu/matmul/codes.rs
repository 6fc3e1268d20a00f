//! What the quantized formats differ in, for kernels: how a group's codes come out of their bit
//! planes, and where its scales lie. [`super::super::matrix::layout`] draws both.

use super::wide::Wide;
use crate::Format;
use crate::cpu::matrix::layout::{
    GROUP, PANEL, VECTOR, code_bias, code_bits, scale_bytes, scales_at, super_bytes,
};

/// Scale and minimum of the two halves of a group; equal where a group has only one.
#[derive(Clone, Copy)]
pub(super) struct Scales<S: Wide> {
    pub(super) scale: [S::F; 2],
    pub(super) minimum: [S::F; 2],
}

/// How a minimum enters a weight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Minimum {
    /// w = scale * (code - bias)
    None,
    /// w = scale * code + minimum
    Added,
    /// w = scale * code - minimum
    Subtracted,
}

/// A quantized format, at compile time. `F` is its [`Format`] as a number.
#[derive(Clone, Copy)]
pub(super) struct Coded<const F: usize>;

/// The formats that [`Coded`] is made for.
pub(super) const FORMATS: [Format; 10] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2K,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
];

impl<const F: usize> Coded<F> {
    pub(super) const FORMAT: Format = FORMATS[F];
    pub(super) const BITS: usize = code_bits(Self::FORMAT);
    /// Bytes of a group's codes.
    pub(super) const GROUP_BYTES: usize = Self::BITS * VECTOR;
    /// Bytes of a super-block: 8 groups, their scales first.
    pub(super) const SUPER_BYTES: usize = super_bytes(Self::FORMAT);
    pub(super) const SCALE_BYTES: usize = scale_bytes(Self::FORMAT);
    /// Codes are relative to this.
    pub(super) const BIAS: i32 = code_bias(Self::FORMAT);
    /// Each half of a group has scales of its own.
    pub(super) const HALVES: bool = matches!(Self::FORMAT, Format::Q2K | Format::Q3K | Format::Q6K);
    pub(super) const MINIMUM: Minimum = match Self::FORMAT {
        Format::Q4_1 | Format::Q5_1 => Minimum::Added,
        Format::Q2K | Format::Q4K | Format::Q5K => Minimum::Subtracted,
        _ => Minimum::None,
    };

    /// The codes of group `g` (below 8) of a super-block: vector j holds k 4j..4j+4 of 16 rows.
    ///
    /// # Safety
    /// `block` has that group.
    #[inline(always)]
    pub(super) unsafe fn unpack<S: Wide>(s: S, block: *const u8, g: usize) -> [S::I; 8] {
        // SAFETY: the planes lie one after the other in the group's bytes.
        let plane = |i| unsafe {
            s.bytes(block.add(Self::SCALE_BYTES + g * Self::GROUP_BYTES + i * VECTOR))
        };
        let mut out = [s.words(0); 8];
        match Self::BITS {
            8 => {
                for (j, out) in out.iter_mut().enumerate() {
                    *out = plane(j);
                }
            }
            2 | 3 => {
                for i in 0..2 {
                    let pairs = plane(i);
                    for j in 0..4 {
                        out[4 * i + j] = s.and(shift_right(s, pairs, 2 * j), 0x0303_0303);
                    }
                }
            }
            _ => {
                for j in 0..4 {
                    let nibbles = plane(j);
                    out[j] = s.and(nibbles, 0x0f0f_0f0f);
                    out[j + 4] = s.and(s.shr(nibbles, 4), 0x0f0f_0f0f);
                }
            }
        }
        if Self::BITS == 3 || Self::BITS == 5 {
            let at = Self::BITS - 1;
            let (bits, mask) = (plane(at), 0x0101_0101 << (at as u32));
            for (j, out) in out.iter_mut().enumerate() {
                *out = s.merge(*out, move_bits(s, bits, j, at), mask);
            }
        }
        if Self::BITS == 6 {
            for i in 0..2 {
                let pairs = plane(4 + i);
                for j in 0..4 {
                    let bits = move_bits(s, pairs, 2 * j, 4);
                    out[4 * i + j] = s.merge(out[4 * i + j], bits, 0x3030_3030);
                }
            }
        }
        out
    }

    /// The scales of group `g` (below 8) of a super-block.
    ///
    /// # Safety
    /// `block` has that group.
    #[inline(always)]
    pub(super) unsafe fn scales<S: Wide>(s: S, block: *const u8, g: usize) -> Scales<S> {
        let per_group = Self::FORMAT.block_len() == GROUP;
        // SAFETY: offsets as the layout says, inside the block's scales.
        unsafe {
            let at = if per_group { block.add(g * scales_at(Self::FORMAT, 1)) } else { block };
            let d = s.load_f16(at);
            let unsigned = |i: usize| s.load_u8(at.add((4 + i) * PANEL));
            match Self::FORMAT {
                Format::Q4_1 | Format::Q5_1 => {
                    let minimum = s.load_f16(at.add(2 * PANEL));
                    Scales { scale: [d; 2], minimum: [minimum; 2] }
                }
                Format::Q4K | Format::Q5K => {
                    let dmin = s.load_f16(at.add(2 * PANEL));
                    let scale = s.mul(d, s.number(unsigned(g)));
                    let minimum = s.mul(dmin, s.number(unsigned(8 + g)));
                    Scales { scale: [scale; 2], minimum: [minimum; 2] }
                }
                Format::Q2K => {
                    let dmin = s.load_f16(at.add(2 * PANEL));
                    let both = [unsigned(2 * g), unsigned(2 * g + 1)];
                    Scales {
                        scale: both.map(|b| s.mul(d, s.number(s.and(b, 15)))),
                        minimum: both.map(|b| s.mul(dmin, s.number(s.shr(b, 4)))),
                    }
                }
                Format::Q3K | Format::Q6K => {
                    let signed = |i: usize| s.load_i8(at.add((2 + i) * PANEL));
                    let both = [signed(2 * g), signed(2 * g + 1)];
                    let scale = both.map(|b| s.mul(d, s.number(b)));
                    Scales { scale, minimum: scale }
                }
                _ => Scales { scale: [d; 2], minimum: [d; 2] },
            }
        }
    }

    /// Where the integer sum of products with `x` begins, so that the codes' bias is out of it;
    /// `negated` is minus the sum of `x`.
    #[inline(always)]
    pub(super) fn start<S: Wide>(s: S, negated: i32) -> S::I {
        match Self::BIAS {
            0 => s.words(0),
            128 => s.start_offset(negated),
            bias => s.shl(s.words(negated as u32), bias.trailing_zeros()),
        }
    }

    /// One step of the integer sum.
    #[inline(always)]
    pub(super) fn dot<S: Wide>(s: S, sum: S::I, w: S::I, x: S::I) -> S::I {
        if Self::BITS == 8 { s.dot_offset(sum, w, x) } else { s.dot(sum, w, x) }
    }
}

#[inline(always)]
fn shift_right<S: Wide>(s: S, v: S::I, n: usize) -> S::I {
    if n == 0 { v } else { s.shr(v, n as u32) }
}

/// Moves what lies at bit `from` of each byte to bit `to`; the neighbours come along.
#[inline(always)]
fn move_bits<S: Wide>(s: S, v: S::I, from: usize, to: usize) -> S::I {
    if from > to { s.shr(v, (from - to) as u32) } else { s.shl(v, (to - from) as u32) }
}
