//! The vocabulary of the matrix products: 64 bytes at a time, as 16 f32 or 16 words of four
//! bytes, whatever the processor.
//!
//! Why so: a product is written once, as a [`Kernel`], and [`dispatch`] compiles it per
//! instruction set. `lanes` is the same idea for ops on activations; this one speaks of packed
//! bytes and dot products, which those ops have no use for. A value of a `Wide` type proves that
//! the processor has the instructions.

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::cpu::isa::Isa;

/// Vectors of 64 bytes on one instruction set.
pub(super) trait Wide: Copy {
    /// 16 f32.
    type F: Copy;
    /// 16 words of 32 bits, or 64 bytes.
    type I: Copy;
    /// Activation rows that a kernel on bytes keeps sums of in registers.
    const BYTE_ROWS: usize;
    /// Activation rows that a kernel on floats keeps sums of in registers.
    const FLOAT_ROWS: usize;
    /// Sums, in vectors, that fit the registers beside a kernel's operands.
    const SUMS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once where the processor can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// c - a * b, rounded once where the processor can.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Reads 16 f32.
    unsafe fn load(self, x: *const f32) -> Self::F;
    /// Reads `n` f32; the other lanes are 0.
    unsafe fn load_part(self, x: *const f32, n: usize) -> Self::F;
    /// Writes 16 f32.
    unsafe fn store(self, x: *mut f32, v: Self::F);
    /// Writes the first `n` lanes.
    unsafe fn store_part(self, x: *mut f32, v: Self::F, n: usize);
    /// Reads 16 f16.
    unsafe fn load_f16(self, x: *const u8) -> Self::F;

    /// Reads 16 bytes as e4m3 (no NaN among them), and gives them over 2^8.
    unsafe fn load_e4m3(self, x: *const u8) -> Self::F;
    /// The lanes of `table` that the low four bits of each word name.
    fn pick(self, table: Self::F, index: Self::I) -> Self::F;

    fn words(self, x: u32) -> Self::I;
    /// The same 16 bytes four times.
    fn table(self, x: &[u8; 16]) -> Self::I;
    /// In each 16 bytes, the bytes of `table` that those of `index` (below 16) name.
    fn lookup(self, table: Self::I, index: Self::I) -> Self::I;
    /// Reads 64 bytes.
    unsafe fn bytes(self, x: *const u8) -> Self::I;
    /// Reads 16 unsigned bytes, one to a word.
    unsafe fn load_u8(self, x: *const u8) -> Self::I;
    /// Reads 16 unsigned shorts, one to a word.
    unsafe fn load_u16(self, x: *const u8) -> Self::I;
    /// Reads 16 signed bytes, one to a word.
    unsafe fn load_i8(self, x: *const u8) -> Self::I;
    /// Sums of words.
    fn plus(self, a: Self::I, b: Self::I) -> Self::I;
    /// Words shifted left by one number.
    fn shl(self, a: Self::I, n: u32) -> Self::I;
    /// Words shifted right by one number, zeros from the left.
    fn shr(self, a: Self::I, n: u32) -> Self::I;
    /// a & mask
    fn and(self, a: Self::I, mask: u32) -> Self::I;
    /// a | (b & mask)
    fn merge(self, a: Self::I, b: Self::I, mask: u32) -> Self::I;
    /// Signed words as numbers.
    fn number(self, a: Self::I) -> Self::F;
    /// The same bits as f32.
    fn float(self, a: Self::I) -> Self::F;

    /// Adds to each word the products of its four unsigned bytes (codes below 128) in `w` with
    /// the four signed bytes in `x` (-127..=127).
    fn dot(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Where sums of [`Wide::dot_offset`] begin; `negated` is minus the sum of all of `x`.
    fn start_offset(self, negated: i32) -> Self::I;
    /// As `dot` with any byte in `w`, meaning its value minus 128.
    fn dot_offset(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Adds to each lane the products of its two bf16 in `w` and `x`.
    fn dot_pairs(self, sum: Self::F, w: Self::I, x: Self::I) -> Self::F;

    /// Asks for the cache line at `x`, which need not be readable.
    fn prefetch(self, x: *const u8);
}

/// A product over [`Wide`]. `run` must be `#[inline(always)]`, or it is compiled without the
/// instruction set that it was dispatched to.
pub(super) trait Kernel {
    /// # Safety
    /// What the kernel's pointers must point to is said where it is made.
    unsafe fn run<S: Wide>(self, s: S);
}

/// Runs a kernel on the given instruction set.
///
/// # Safety
/// The kernel's own demands.
#[inline]
pub(super) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) {
    // SAFETY: an `Isa` is only made for what the processor has; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        {
            if isa.has_avx512() {
                return avx512::run(kernel);
            }
            if isa.has_avx_vnni() {
                return avx2::run_vnni(kernel);
            }
            if isa.has_avx2() {
                return avx2::run(kernel);
            }
        }
        let _ = isa;
        portable::run(kernel);
    }
}

/// Runs a kernel that uses [`Wide::dot_pairs`].
///
/// # Safety
/// The kernel's own demands, and `isa.has_bf16()`.
#[inline]
pub(super) unsafe fn dispatch_pairs<K: Kernel>(isa: Isa, kernel: K) {
    assert!(isa.has_bf16(), "packed for a processor with bf16 products");
    // SAFETY: checked above; the rest is the caller's promise.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        avx512::run_bf16(kernel);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = kernel;
}
