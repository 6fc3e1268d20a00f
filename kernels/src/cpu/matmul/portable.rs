//! [`Wide`] as plain loops over arrays, which compilers turn into what vectors the target has
//! (SSE2, NEON).

use half::f16;

use super::wide::{Kernel, Wide};
use crate::cpu::matrix::layout::PANEL;

/// Plain Rust; needs nothing of the processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Compiles a kernel for any processor. Not inlined: the callers are tables of all kernels, which
/// would become one huge function.
///
/// # Safety
/// The kernel's own demands.
#[inline(never)]
pub(super) unsafe fn run<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run(Portable) }
}

type F = [f32; PANEL];
type I = [u32; PANEL];

#[inline(always)]
fn floats(f: impl FnMut(usize) -> f32) -> F {
    std::array::from_fn(f)
}

#[inline(always)]
fn ints(f: impl FnMut(usize) -> u32) -> I {
    std::array::from_fn(f)
}

/// Byte `b` of a word of unsigned, and of signed, bytes.
#[inline(always)]
fn unsigned(word: u32, b: u32) -> i32 {
    (word >> (8 * b) & 255) as i32
}

#[inline(always)]
fn signed(word: u32, b: u32) -> i32 {
    i32::from((word >> (8 * b)) as u8 as i8)
}

impl Wide for Portable {
    type F = F;
    type I = I;
    const BYTE_ROWS: usize = 2;
    const FLOAT_ROWS: usize = 4;
    const SUMS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; PANEL]
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        floats(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        floats(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        floats(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        floats(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        floats(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn load(self, x: *const f32) -> F {
        // SAFETY: the caller's promise: 16 f32 are readable.
        unsafe { x.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_part(self, x: *const f32, n: usize) -> F {
        // SAFETY: the caller's promise: `n` f32 are readable.
        floats(|i| if i < n { unsafe { x.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(self, x: *mut f32, v: F) {
        // SAFETY: the caller's promise: 16 f32 are writable.
        unsafe { x.cast::<F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, x: *mut f32, v: F, n: usize) {
        for (i, &v) in v.iter().take(n).enumerate() {
            // SAFETY: the caller's promise: `n` f32 are writable.
            unsafe { x.add(i).write(v) }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, x: *const u8) -> F {
        // SAFETY: the caller's promise: 32 bytes are readable.
        let bits = unsafe { x.cast::<[u16; PANEL]>().read_unaligned() };
        floats(|i| f16::from_bits(bits[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, x: *const u8) -> F {
        // SAFETY: the caller's promise: 16 bytes are readable.
        let codes = unsafe { x.cast::<[i8; PANEL]>().read_unaligned() };
        // Sign, exponent and fraction where f16 has them; the exponent's bias is off by 8.
        floats(|i| f16::from_bits((i16::from(codes[i]) << 7) as u16 & !0x4000).to_f32())
    }
    #[inline(always)]
    fn pick(self, table: F, index: I) -> F {
        floats(|i| table[index[i] as usize & 15])
    }
    #[inline(always)]
    fn table(self, x: &[u8; 16]) -> I {
        ints(|i| {
            let byte = i % 4 * 4;
            u32::from_le_bytes([x[byte], x[byte + 1], x[byte + 2], x[byte + 3]])
        })
    }
    #[inline(always)]
    fn lookup(self, table: I, index: I) -> I {
        ints(|i| {
            let bytes = index[i].to_le_bytes().map(|b| {
                let word = table[i / 4 * 4 + usize::from(b & 15) / 4];
                (word >> (8 * u32::from(b % 4))) as u8
            });
            u32::from_le_bytes(bytes)
        })
    }
    #[inline(always)]
    unsafe fn load_u16(self, x: *const u8) -> I {
        // SAFETY: the caller's promise: 32 bytes are readable.
        let shorts = unsafe { x.cast::<[u16; PANEL]>().read_unaligned() };
        ints(|i| u32::from(shorts[i]))
    }
    #[inline(always)]
    fn plus(self, a: I, b: I) -> I {
        ints(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn words(self, x: u32) -> I {
        [x; PANEL]
    }
    #[inline(always)]
    unsafe fn bytes(self, x: *const u8) -> I {
        // SAFETY: the caller's promise: 64 bytes are readable.
        unsafe { x.cast::<I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_u8(self, x: *const u8) -> I {
        // SAFETY: the caller's promise: 16 bytes are readable.
        let bytes = unsafe { x.cast::<[u8; PANEL]>().read_unaligned() };
        ints(|i| u32::from(bytes[i]))
    }
    #[inline(always)]
    unsafe fn load_i8(self, x: *const u8) -> I {
        // SAFETY: the caller's promise: 16 bytes are readable.
        let bytes = unsafe { x.cast::<[i8; PANEL]>().read_unaligned() };
        ints(|i| i32::from(bytes[i]) as u32)
    }
    #[inline(always)]
    fn shl(self, a: I, n: u32) -> I {
        ints(|i| a[i] << n)
    }
    #[inline(always)]
    fn shr(self, a: I, n: u32) -> I {
        ints(|i| a[i] >> n)
    }
    #[inline(always)]
    fn and(self, a: I, mask: u32) -> I {
        ints(|i| a[i] & mask)
    }
    #[inline(always)]
    fn merge(self, a: I, b: I, mask: u32) -> I {
        ints(|i| a[i] | b[i] & mask)
    }
    #[inline(always)]
    fn number(self, a: I) -> F {
        floats(|i| a[i] as i32 as f32)
    }
    #[inline(always)]
    fn float(self, a: I) -> F {
        floats(|i| f32::from_bits(a[i]))
    }
    #[inline(always)]
    fn dot(self, sum: I, w: I, x: I) -> I {
        ints(|i| {
            let add: i32 = (0..4).map(|b| unsigned(w[i], b) * signed(x[i], b)).sum();
            sum[i].wrapping_add(add as u32)
        })
    }
    #[inline(always)]
    fn start_offset(self, _: i32) -> I {
        [0; PANEL]
    }
    #[inline(always)]
    fn dot_offset(self, sum: I, w: I, x: I) -> I {
        ints(|i| {
            let add: i32 = (0..4).map(|b| (unsigned(w[i], b) - 128) * signed(x[i], b)).sum();
            sum[i].wrapping_add(add as u32)
        })
    }
    #[inline(always)]
    fn dot_pairs(self, _: F, _: I, _: I) -> F {
        unreachable!("only dispatched where the processor has it")
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}
