//! [`Lanes`] as plain loops over an array: for processors without AVX2 and as the version that
//! the other two are tested against.

use half::{bf16, f16};

use super::{LANES, Lanes};

/// Plain Rust; needs nothing of the processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(f: impl FnMut(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

/// 2^n for integral n in -126..=127.
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// An f16 without a branch, so that it vectorises: the exponent is rebased by 2^112, which also
/// makes subnormals right, and infinities and NaN keep all exponent bits.
#[inline(always)]
fn wide(half: u16) -> f32 {
    let half = u32::from(half);
    let finite = f32::from_bits((half & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if half & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite.to_bits() | special | (half & 0x8000) << 16)
}

impl Lanes for Portable {
    type V = [f32; LANES];
    type M = u16;
    type D = [f64; LANES];
    const QUERIES: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        each(|i| f32::from_bits(u32::from(x[i].to_bits()) << 16))
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        each(|i| wide(x[i].to_bits()))
    }
    #[inline(always)]
    fn store(self, x: &mut [f32; LANES], v: Self::V) {
        *x = v;
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        // In two steps, as 2^128 alone is no f32.
        each(|i| {
            let n = n[i] as i32;
            a[i] * power(n >> 1) * power(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn ge(self, a: Self::V, b: Self::V) -> Self::M {
        (0..LANES).fold(0, |m, i| m | (u16::from(a[i] >= b[i]) << i))
    }
    #[inline(always)]
    fn unordered(self, a: Self::V, b: Self::V) -> Self::M {
        (0..LANES).fold(0, |m, i| m | (u16::from(a[i].is_nan() || b[i].is_nan()) << i))
    }
    #[inline(always)]
    fn range(self, from: usize, to: usize) -> Self::M {
        (((1u32 << to) - 1) & !((1u32 << from) - 1)) as u16
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if m >> i & 1 == 1 { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn bits(self, m: Self::M) -> u16 {
        m
    }
    #[inline(always)]
    fn lanes(self, bits: u16) -> Self::M {
        bits
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let eight: [f32; 8] = std::array::from_fn(|i| v[i] + v[i + 8]);
        let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sums(self) -> Self::D {
        [0.0; LANES]
    }
    #[inline(always)]
    fn accumulate(self, d: Self::D, v: Self::V) -> Self::D {
        std::array::from_fn(|i| d[i] + f64::from(v[i]))
    }
    #[inline(always)]
    fn total(self, d: Self::D) -> f64 {
        d.iter().sum()
    }
    #[inline(always)]
    fn compress(self, out: &mut [f32; LANES], chosen: u16, v: Self::V) {
        let (mut left, mut n) = (chosen, 0);
        while left != 0 {
            out[n] = v[left.trailing_zeros() as usize];
            left &= left - 1;
            n += 1;
        }
    }
    #[inline(always)]
    fn compress_ids(self, out: &mut [u32; LANES], chosen: u16, base: u32) {
        let (mut left, mut n) = (chosen, 0);
        while left != 0 {
            out[n] = base + left.trailing_zeros();
            left &= left - 1;
            n += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_f16_widen_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (wide(bits), f16::from_bits(bits).to_f32());
            assert!(got == want || (got.is_nan() && want.is_nan()), "{bits:#x}: {got}, {want}");
            assert_eq!(got.is_sign_negative(), want.is_sign_negative());
        }
    }
}
