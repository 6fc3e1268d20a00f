//! What the quantized formats differ in, for kernels: how a group's codes come out of their bit
//! planes, and where its scales lie. [`super::super::matrix::coding`] draws both.

use super::wide::Wide;
use crate::cpu::matrix::coding::{Codes, Coding, DELTAS_AT, Minimum, Scaling};
use crate::cpu::matrix::layout::{PANEL, VECTOR};

/// Scale and minimum of the two halves of a group; equal where a group has only one.
#[derive(Clone, Copy)]
pub(super) struct Scales<S: Wide> {
    pub(super) scale: [S::F; 2],
    pub(super) minimum: [S::F; 2],
}

/// A coding, at compile time. `C` is its place in [`CODINGS`].
#[derive(Clone, Copy)]
pub(super) struct Coded<const C: usize>;

/// The codings that [`Coded`] is made for.
pub(super) const CODINGS: [Coding; 16] = [
    Coding::Q4_0,
    Coding::Q4_1,
    Coding::Q5_0,
    Coding::Q5_1,
    Coding::Q8_0,
    Coding::Q2K,
    Coding::Q3K,
    Coding::Q4K,
    Coding::Q5K,
    Coding::Q6K,
    Coding::Table3,
    Coding::Table4,
    Coding::Zero2,
    Coding::Zero3,
    Coding::Zero4,
    Coding::Zero8,
];

impl<const C: usize> Coded<C> {
    const CODING: Coding = CODINGS[C];
    const BITS: usize = Self::CODING.bits();
    const TABLE: bool = Self::CODING.table();
    /// Codes are relative to this.
    pub(super) const BIAS: i32 = Self::CODING.bias();
    /// Each half of a group has scales of its own.
    pub(super) const HALVES: bool = Self::CODING.halves();
    pub(super) const MINIMUM: Minimum = Self::CODING.minimum();

    /// The codes of group `g` (below 8) of a super-block, or their table's entries: vector j holds
    /// k 4j..4j+4 of 16 rows.
    ///
    /// # Safety
    /// `block` has that group.
    #[inline(always)]
    pub(super) unsafe fn unpack<S: Wide>(
        s: S,
        codes: &Codes,
        block: *const u8,
        g: usize,
    ) -> [S::I; 8] {
        // SAFETY: the planes lie one after the other in the group's bytes.
        let plane = |i| unsafe {
            s.bytes(block.add(codes.scale_bytes + g * codes.group_bytes + i * VECTOR))
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
        if Self::TABLE && Self::BITS == 3 && codes.scaling == Scaling::Deltas {
            // SAFETY: the words lie with the block's scales.
            unsafe { third_bits(s, block.add(DELTAS_AT), g, &mut out) };
        } else if Self::BITS == 3 || Self::BITS == 5 {
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
        if Self::TABLE {
            let table = s.table(&codes.table);
            out = out.map(|index| s.lookup(table, index));
        }
        out
    }

    /// The scales of group `g` (below 8) of a super-block.
    ///
    /// # Safety
    /// `block` has that group.
    #[inline(always)]
    pub(super) unsafe fn scales<S: Wide>(
        s: S,
        codes: &Codes,
        block: *const u8,
        g: usize,
    ) -> Scales<S> {
        // SAFETY: offsets as the layout says, inside the block's scales.
        unsafe {
            let at = block.add(codes.block_at(g));
            let one = |scale, minimum| Scales { scale: [scale; 2], minimum: [minimum; 2] };
            match Self::CODING {
                Coding::Q4_0 | Coding::Q5_0 | Coding::Q8_0 => {
                    let d = s.load_f16(at);
                    one(d, d)
                }
                Coding::Q4_1 | Coding::Q5_1 => one(s.load_f16(at), s.load_f16(at.add(2 * PANEL))),
                Coding::Q2K | Coding::Q4K | Coding::Q5K => Self::with_minima(s, at, g),
                Coding::Q3K | Coding::Q6K => per_16(s, s.load_f16(at), at, g),
                Coding::Table3 => {
                    let d = s.mul(s.load_f16(at), s.splat(codes.factor));
                    if codes.scaling == Scaling::Per32 {
                        let scale = s.mul(d, s.number(s.load_i8(at.add((2 + g) * PANEL))));
                        return one(scale, scale);
                    }
                    per_16(s, d, at, g)
                }
                Coding::Table4 => {
                    let scale = match codes.scaling {
                        Scaling::Power => power_of_two(s, s.load_u8(at)),
                        Scaling::Per32 => {
                            let d = s.mul(s.load_f16(at), s.splat(codes.factor));
                            s.mul(d, s.number(s.load_i8(at.add((2 + g) * PANEL))))
                        }
                        _ => s.load_f16(at),
                    };
                    one(scale, scale)
                }
                Coding::Zero2 if codes.scaling == Scaling::F16 => one(s.load_f16(at), s.splat(1.0)),
                Coding::Zero2 if codes.scaling == Scaling::Shifted => {
                    let both = s.load_u8(at.add((2 + g) * PANEL));
                    let scale = s.mul(s.load_f16(at), s.number(s.and(both, 127)));
                    // 1 less a shift of 1/8, or plus one.
                    let minus = s.number(s.shr(both, 7));
                    one(scale, s.fma(minus, s.splat(0.25), s.splat(0.875)))
                }
                _ => {
                    let zero = s.number(s.load_u16(at.add(4 * PANEL)));
                    one(s.load(at.cast()), s.sub(zero, s.splat(Self::BIAS as f32)))
                }
            }
        }
    }

    /// Scales and minima of the K formats that have both.
    ///
    /// # Safety
    /// As [`Coded::scales`]; `at` is where the block's begin.
    #[inline(always)]
    unsafe fn with_minima<S: Wide>(s: S, at: *const u8, g: usize) -> Scales<S> {
        // SAFETY: the caller's promise.
        unsafe {
            let (d, dmin) = (s.load_f16(at), s.load_f16(at.add(2 * PANEL)));
            let unsigned = |i: usize| s.load_u8(at.add((4 + i) * PANEL));
            if Self::HALVES {
                let both = [unsigned(2 * g), unsigned(2 * g + 1)];
                return Scales {
                    scale: both.map(|b| s.mul(d, s.number(s.and(b, 15)))),
                    minimum: both.map(|b| s.mul(dmin, s.number(s.shr(b, 4)))),
                };
            }
            let scale = s.mul(d, s.number(unsigned(g)));
            let minimum = s.mul(dmin, s.number(unsigned(8 + g)));
            Scales { scale: [scale; 2], minimum: [minimum; 2] }
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
        if Self::BIAS == 128 { s.dot_offset(sum, w, x) } else { s.dot(sum, w, x) }
    }
}

/// Signed scales of the halves of group `g`.
///
/// # Safety
/// As [`Coded::scales`]; `at` is where the block's begin.
#[inline(always)]
unsafe fn per_16<S: Wide>(s: S, d: S::F, at: *const u8, g: usize) -> Scales<S> {
    // SAFETY: the caller's promise.
    let signed = |i: usize| unsafe { s.number(s.load_i8(at.add((2 + i) * PANEL))) };
    let scale = [s.mul(d, signed(2 * g)), s.mul(d, signed(2 * g + 1))];
    Scales { scale, minimum: scale }
}

/// 2^(e - 128) for bytes e. Half of the exponent twice, so that the least of them come out too.
#[inline(always)]
fn power_of_two<S: Wide>(s: S, e: S::I) -> S::F {
    let half = s.and(s.shl(e, 22), 0x3f80_0000);
    let odd = s.shl(s.and(e, 1), 23);
    // 2^(e/2 - 95), and 2^62 with what e/2 left.
    let half = s.float(s.plus(half, s.words(32 << 23)));
    let rest = s.float(s.plus(odd, s.words(189 << 23)));
    s.mul(s.mul(half, rest), half)
}

/// Sets bit 2 of the codes of group `g` from a word a row whose bit i is for codes 8i..8i+8.
///
/// # Safety
/// 16 words are readable at `words`.
#[inline(always)]
unsafe fn third_bits<S: Wide>(s: S, words: *const u8, g: usize, out: &mut [S::I; 8]) {
    /// Byte b of each word to all of its bytes.
    const SPREAD: [[u8; 16]; 4] = {
        let (mut out, mut i) = ([[0; 16]; 4], 0);
        while i < 64 {
            out[i / 16][i % 16] = (i % 16 / 4 * 4 + i / 16) as u8;
            i += 1;
        }
        out
    };
    // SAFETY: the caller's promise.
    let words = unsafe { s.bytes(words) };
    let bits = s.lookup(words, s.table(&SPREAD[g / 2]));
    let bits = s.shr(bits, (g % 2 * 4) as u32);
    for (j, out) in out.iter_mut().enumerate() {
        *out = s.merge(*out, move_bits(s, bits, j / 2, 2), 0x0404_0404);
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
