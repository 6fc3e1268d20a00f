//! [`Wide`] on AVX-512: one register per vector, VNNI byte products, bf16 pairs where they exist.

use std::arch::x86_64::*;

use super::wide::{Kernel, Wide};

/// Proof that the processor has AVX-512 F, BW, VL, DQ and VNNI, and BF16 if `PAIRS`; made in
/// [`run`] and [`run_bf16`] only.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const PAIRS: bool>(());

/// Compiles a kernel for AVX-512.
///
/// # Safety
/// The processor has the features named; the kernel's own demands.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi1,bmi2")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run(Avx512::<false>(())) }
}

/// Compiles a kernel for AVX-512 with products of bf16 pairs.
///
/// # Safety
/// The processor has the features named; the kernel's own demands.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
pub(super) unsafe fn run_bf16<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run(Avx512::<true>(())) }
}

/// Calls intrinsics whose instruction set the token proves.
macro_rules! proven {
    ($($body:tt)*) => {{
        // SAFETY: an `Avx512` exists only where the processor has these instructions; what
        // pointers point to is the caller's promise.
        unsafe { $($body)* }
    }};
}

fn first(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}

impl<const PAIRS: bool> Wide for Avx512<PAIRS> {
    type F = __m512;
    type I = __m512i;
    const BYTE_ROWS: usize = 16;
    const FLOAT_ROWS: usize = 12;
    const SUMS: usize = 24;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    unsafe fn load(self, x: *const f32) -> Self::F {
        proven!(_mm512_loadu_ps(x))
    }
    #[inline(always)]
    unsafe fn load_part(self, x: *const f32, n: usize) -> Self::F {
        proven!(_mm512_maskz_loadu_ps(first(n), x))
    }
    #[inline(always)]
    unsafe fn store(self, x: *mut f32, v: Self::F) {
        proven!(_mm512_storeu_ps(x, v));
    }
    #[inline(always)]
    unsafe fn store_part(self, x: *mut f32, v: Self::F, n: usize) {
        proven!(_mm512_mask_storeu_ps(x, first(n), v));
    }
    #[inline(always)]
    unsafe fn load_f16(self, x: *const u8) -> Self::F {
        proven!(_mm512_cvtph_ps(_mm256_loadu_si256(x.cast())))
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, x: *const u8) -> Self::F {
        // Sign, exponent and fraction where f16 has them; the exponent's bias is off by 8.
        proven!({
            let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(x.cast()));
            let bits = _mm256_and_si256(_mm256_slli_epi16::<7>(wide), _mm256_set1_epi16(!0x4000));
            _mm512_cvtph_ps(bits)
        })
    }
    #[inline(always)]
    fn pick(self, table: Self::F, index: Self::I) -> Self::F {
        proven!(_mm512_permutexvar_ps(index, table))
    }
    #[inline(always)]
    fn table(self, x: &[u8; 16]) -> Self::I {
        proven!(_mm512_broadcast_i32x4(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn lookup(self, table: Self::I, index: Self::I) -> Self::I {
        proven!(_mm512_shuffle_epi8(table, index))
    }
    #[inline(always)]
    unsafe fn load_u16(self, x: *const u8) -> Self::I {
        proven!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast())))
    }
    #[inline(always)]
    fn plus(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn words(self, x: u32) -> Self::I {
        proven!(_mm512_set1_epi32(x as i32))
    }
    #[inline(always)]
    unsafe fn bytes(self, x: *const u8) -> Self::I {
        proven!(_mm512_loadu_si512(x.cast()))
    }
    #[inline(always)]
    unsafe fn load_u8(self, x: *const u8) -> Self::I {
        proven!(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.cast())))
    }
    #[inline(always)]
    unsafe fn load_i8(self, x: *const u8) -> Self::I {
        proven!(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.cast())))
    }
    #[inline(always)]
    fn shl(self, a: Self::I, n: u32) -> Self::I {
        proven!(_mm512_sllv_epi32(a, _mm512_set1_epi32(n as i32)))
    }
    #[inline(always)]
    fn shr(self, a: Self::I, n: u32) -> Self::I {
        proven!(_mm512_srlv_epi32(a, _mm512_set1_epi32(n as i32)))
    }
    #[inline(always)]
    fn and(self, a: Self::I, mask: u32) -> Self::I {
        proven!(_mm512_and_si512(a, _mm512_set1_epi32(mask as i32)))
    }
    #[inline(always)]
    fn merge(self, a: Self::I, b: Self::I, mask: u32) -> Self::I {
        // 0xF8 is the truth table of a | (b & c).
        proven!(_mm512_ternarylogic_epi32::<0xF8>(a, b, _mm512_set1_epi32(mask as i32)))
    }
    #[inline(always)]
    fn number(self, a: Self::I) -> Self::F {
        proven!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn float(self, a: Self::I) -> Self::F {
        proven!(_mm512_castsi512_ps(a))
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I {
        proven!(_mm512_dpbusd_epi32(sum, w, x))
    }
    #[inline(always)]
    fn start_offset(self, negated: i32) -> Self::I {
        self.shl(self.words(negated as u32), 7)
    }
    #[inline(always)]
    fn dot_offset(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I {
        self.dot(sum, w, x)
    }
    #[inline(always)]
    fn dot_pairs(self, sum: Self::F, w: Self::I, x: Self::I) -> Self::F {
        assert!(PAIRS, "only dispatched where the processor has it");
        // SAFETY: `PAIRS` proves it; the types differ only in name.
        unsafe {
            let pairs = |v| std::mem::transmute::<__m512i, __m512bh>(v);
            _mm512_dpbf16_ps(sum, pairs(w), pairs(x))
        }
    }
    #[inline(always)]
    fn prefetch(self, x: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(x.cast()));
    }
}
