//! Sixteen f32 at a time, whatever the processor: [`Lanes`] is the one vocabulary in which the
//! ops on activations are written, with an AVX-512, an AVX2 and a portable implementation.
//!
//! Why so: an op is written once, as a [`Kernel`], and [`dispatch`] compiles it three times and
//! picks at run time. All versions have 16 lanes, so loops, tails and page layouts are the same
//! everywhere. A value of a `Lanes` type proves that the processor has the instructions, which
//! makes the arithmetic safe to call. It must not know any op.

mod avx2;
mod avx512;
mod portable;

use half::{bf16, f16};

use super::isa::Isa;

pub(crate) use portable::Portable;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Vectors of 16 f32 on one instruction set. Masks hold one truth value per lane.
pub(crate) trait Lanes: Copy {
    /// 16 f32.
    type V: Copy;
    /// 16 truth values.
    type M: Copy;
    /// 16 f64 sums.
    type D: Copy;
    /// How many queries attention works on at once: as many as the registers hold.
    const QUERIES: usize;

    /// The same value in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// Reads 16 values.
    fn load(self, x: &[f32; LANES]) -> Self::V;
    /// Reads 16 values.
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V;
    /// Reads 16 values.
    fn load_f16(self, x: &[f16; LANES]) -> Self::V;
    /// Writes 16 values.
    fn store(self, x: &mut [f32; LANES], v: Self::V);

    /// Asks for the cache line at `x`, which may be any address.
    #[inline(always)]
    fn prefetch(self, x: *const u8) {
        let _ = x;
    }

    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, rounded once where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater; b when either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; b when either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// a * 2^n for integral n in -126..=128.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;

    /// a >= b
    fn ge(self, a: Self::V, b: Self::V) -> Self::M;
    /// a or b is not a number.
    fn unordered(self, a: Self::V, b: Self::V) -> Self::M;
    /// Lanes `from..to`.
    fn range(self, from: usize, to: usize) -> Self::M;
    /// a where m, else b.
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// Bit i is lane i.
    fn bits(self, m: Self::M) -> u16;
    /// Lane i is bit i: what [`Lanes::bits`] gives back.
    fn lanes(self, bits: u16) -> Self::M;

    /// Sum of all lanes, in one fixed order.
    fn sum(self, v: Self::V) -> f32;
    /// Greatest lane.
    fn greatest(self, v: Self::V) -> f32;
    /// Zero sums.
    fn sums(self) -> Self::D;
    /// Adds 16 values to 16 sums.
    fn accumulate(self, d: Self::D, v: Self::V) -> Self::D;
    /// All sums in one, in one fixed order.
    fn total(self, d: Self::D) -> f64;

    /// Writes the chosen lanes of v side by side; may overwrite all 16 places of `out`.
    fn compress(self, out: &mut [f32; LANES], chosen: u16, v: Self::V);
    /// Writes `base + lane` of the chosen lanes side by side; may overwrite all 16 places.
    fn compress_ids(self, out: &mut [u32; LANES], chosen: u16, base: u32);

    /// Lane j of result i is lane i of `v[j]`.
    #[inline(always)]
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES] {
        let mut rows = [[0.0; LANES]; LANES];
        for (row, v) in rows.iter_mut().zip(v) {
            self.store(row, v);
        }
        let mut out = v;
        for (i, out) in out.iter_mut().enumerate() {
            let mut column = [0.0; LANES];
            for (x, row) in column.iter_mut().zip(&rows) {
                *x = row[i];
            }
            *out = self.load(&column);
        }
        out
    }

    /// Reads up to 16 values; lanes past the end are `rest`.
    #[inline(always)]
    fn load_part(self, x: &[f32], rest: f32) -> Self::V {
        if let Ok(full) = x.try_into() {
            return self.load(full);
        }
        let mut full = [rest; LANES];
        full[..x.len()].copy_from_slice(x);
        self.load(&full)
    }

    /// Writes the first `x.len()` lanes.
    #[inline(always)]
    fn store_part(self, x: &mut [f32], v: Self::V) {
        if let Ok(full) = x.try_into() {
            return self.store(full, v);
        }
        let mut full = [0.0; LANES];
        self.store(&mut full, v);
        x.copy_from_slice(&full[..x.len()]);
    }
}

/// An op over [`Lanes`]. `run` and what it calls with vectors must be `#[inline(always)]`: what is
/// not inlined (a closure, too) is compiled without the instruction set and runs many times slower.
pub(crate) trait Kernel {
    /// What it gives back.
    type Out;
    /// Runs on one instruction set.
    fn run<S: Lanes>(self, s: S) -> Self::Out;
}

/// Runs a kernel on the given instruction set.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    {
        if isa.has_avx512() {
            // SAFETY: `Isa` is only made with AVX-512 when the processor reports it.
            return unsafe { avx512::run(kernel) };
        }
        if isa.has_avx2() {
            // SAFETY: `Isa` is only made with AVX2 when the processor reports it.
            return unsafe { avx2::run(kernel) };
        }
    }
    let _ = isa;
    kernel.run(Portable)
}
