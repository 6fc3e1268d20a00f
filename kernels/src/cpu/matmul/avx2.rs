//! [`Wide`] on AVX2 with FMA and F16C: two registers per vector; byte products by VNNI in its
//! 256-bit encoding, or by multiply-add of bytes and of 16-bit pairs.

use std::arch::x86_64::*;

use super::wide::{Kernel, Wide};

/// Proof that the processor has AVX2, FMA and F16C, and AVX-VNNI if `VNNI`; made in [`run`] and
/// [`run_vnni`] only.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>(());

/// Compiles a kernel for AVX2.
///
/// # Safety
/// The processor has the features named; the kernel's own demands.
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run(Avx2::<false>(())) }
}

/// Compiles a kernel for AVX2 and AVX-VNNI.
///
/// # Safety
/// The processor has the features named; the kernel's own demands.
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,avxvnni")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run(Avx2::<true>(())) }
}

/// Calls intrinsics whose instruction set the token proves.
macro_rules! proven {
    ($($body:tt)*) => {{
        // SAFETY: an `Avx2` exists only where the processor has these instructions; what
        // pointers point to is the caller's promise.
        unsafe { $($body)* }
    }};
}

/// The same for both halves `$i` of a vector.
macro_rules! both {
    (|$i:ident| $body:expr) => {
        proven!([
            {
                let $i = 0;
                $body
            },
            {
                let $i = 1;
                $body
            },
        ])
    };
}

/// Lanes 8h.. of the first `n`: all bits set.
#[inline(always)]
unsafe fn first(n: usize, h: usize) -> __m256i {
    let bound = n as i32 - 8 * h as i32;
    // SAFETY: only called where AVX2 is proven.
    unsafe {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(bound), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }
}

/// Byte products without VNNI: pairs saturate at 16 bits, which codes below 128 never reach.
#[inline(always)]
unsafe fn byte_products(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: only called where AVX2 is proven.
    unsafe {
        let pairs = _mm256_maddubs_epi16(w, x);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

impl<const VNNI: bool> Wide for Avx2<VNNI> {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    const BYTE_ROWS: usize = 4;
    const FLOAT_ROWS: usize = 6;
    const SUMS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(|i| _mm256_mul_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(|i| _mm256_add_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(|i| _mm256_sub_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(|i| _mm256_fmadd_ps(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(|i| _mm256_fnmadd_ps(a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn load(self, x: *const f32) -> Self::F {
        both!(|i| _mm256_loadu_ps(x.add(8 * i)))
    }
    #[inline(always)]
    unsafe fn load_part(self, x: *const f32, n: usize) -> Self::F {
        both!(|i| _mm256_maskload_ps(x.wrapping_add(8 * i), first(n, i)))
    }
    #[inline(always)]
    unsafe fn store(self, x: *mut f32, v: Self::F) {
        both!(|i| _mm256_storeu_ps(x.add(8 * i), v[i]));
    }
    #[inline(always)]
    unsafe fn store_part(self, x: *mut f32, v: Self::F, n: usize) {
        both!(|i| _mm256_maskstore_ps(x.wrapping_add(8 * i), first(n, i), v[i]));
    }
    #[inline(always)]
    unsafe fn load_f16(self, x: *const u8) -> Self::F {
        both!(|i| _mm256_cvtph_ps(_mm_loadu_si128(x.add(16 * i).cast())))
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, x: *const u8) -> Self::F {
        // Sign, exponent and fraction where f16 has them; the exponent's bias is off by 8.
        both!(|i| {
            let wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(x.add(8 * i).cast()));
            _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16::<7>(wide), _mm_set1_epi16(!0x4000)))
        })
    }
    #[inline(always)]
    fn pick(self, table: Self::F, index: Self::I) -> Self::F {
        both!(|i| {
            let low = _mm256_permutevar8x32_ps(table[0], index[i]);
            let high = _mm256_permutevar8x32_ps(table[1], index[i]);
            let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index[i]));
            _mm256_blendv_ps(low, high, upper)
        })
    }
    #[inline(always)]
    fn table(self, x: &[u8; 16]) -> Self::I {
        proven!([_mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().cast())); 2])
    }
    #[inline(always)]
    fn lookup(self, table: Self::I, index: Self::I) -> Self::I {
        both!(|i| _mm256_shuffle_epi8(table[i], index[i]))
    }
    #[inline(always)]
    unsafe fn load_u16(self, x: *const u8) -> Self::I {
        both!(|i| _mm256_cvtepu16_epi32(_mm_loadu_si128(x.add(16 * i).cast())))
    }
    #[inline(always)]
    fn plus(self, a: Self::I, b: Self::I) -> Self::I {
        both!(|i| _mm256_add_epi32(a[i], b[i]))
    }
    #[inline(always)]
    fn words(self, x: u32) -> Self::I {
        proven!([_mm256_set1_epi32(x as i32); 2])
    }
    #[inline(always)]
    unsafe fn bytes(self, x: *const u8) -> Self::I {
        both!(|i| _mm256_loadu_si256(x.add(32 * i).cast()))
    }
    #[inline(always)]
    unsafe fn load_u8(self, x: *const u8) -> Self::I {
        both!(|i| _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.add(8 * i).cast())))
    }
    #[inline(always)]
    unsafe fn load_i8(self, x: *const u8) -> Self::I {
        both!(|i| _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.add(8 * i).cast())))
    }
    #[inline(always)]
    fn shl(self, a: Self::I, n: u32) -> Self::I {
        both!(|i| _mm256_sllv_epi32(a[i], _mm256_set1_epi32(n as i32)))
    }
    #[inline(always)]
    fn shr(self, a: Self::I, n: u32) -> Self::I {
        both!(|i| _mm256_srlv_epi32(a[i], _mm256_set1_epi32(n as i32)))
    }
    #[inline(always)]
    fn and(self, a: Self::I, mask: u32) -> Self::I {
        both!(|i| _mm256_and_si256(a[i], _mm256_set1_epi32(mask as i32)))
    }
    #[inline(always)]
    fn merge(self, a: Self::I, b: Self::I, mask: u32) -> Self::I {
        let b = self.and(b, mask);
        both!(|i| _mm256_or_si256(a[i], b[i]))
    }
    #[inline(always)]
    fn number(self, a: Self::I) -> Self::F {
        both!(|i| _mm256_cvtepi32_ps(a[i]))
    }
    #[inline(always)]
    fn float(self, a: Self::I) -> Self::F {
        both!(|i| _mm256_castsi256_ps(a[i]))
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I {
        both!(|i| if VNNI {
            _mm256_dpbusd_avx_epi32(sum[i], w[i], x[i])
        } else {
            byte_products(sum[i], w[i], x[i])
        })
    }
    #[inline(always)]
    fn start_offset(self, negated: i32) -> Self::I {
        if VNNI { self.shl(self.words(negated as u32), 7) } else { self.words(0) }
    }
    #[inline(always)]
    fn dot_offset(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I {
        if VNNI {
            return self.dot(sum, w, x);
        }
        // The weight's magnitude by the activation with the weight's sign: at most 128 * 127 * 2.
        both!(|i| {
            let weight = _mm256_xor_si256(w[i], _mm256_set1_epi8(-128));
            byte_products(sum[i], _mm256_abs_epi8(weight), _mm256_sign_epi8(x[i], weight))
        })
    }
    #[inline(always)]
    fn dot_pairs(self, _: Self::F, _: Self::I, _: Self::I) -> Self::F {
        unreachable!("only dispatched where the processor has it")
    }
    #[inline(always)]
    fn prefetch(self, x: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(x.cast()));
    }
}
