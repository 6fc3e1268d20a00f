//! [`Lanes`] on AVX-512 (F, BW, VL, DQ): one register per vector, one mask register per mask.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, LANES, Lanes};

/// Proof that the processor has AVX-512 F, BW, VL and DQ; made in [`run`] only.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Compiles a kernel for AVX-512.
///
/// # Safety
/// The processor has the features named.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt"
)]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx512(()))
}

/// Calls intrinsics whose instruction set the token proves.
macro_rules! proven {
    ($($body:tt)*) => {{
        // SAFETY: an `Avx512` exists only where the processor has these instructions, and
        // references to 16 elements are readable or writable for 16 elements.
        unsafe { $($body)* }
    }};
}

impl Lanes for Avx512 {
    type V = __m512;
    type M = __mmask16;
    type D = [__m512d; 2];
    const QUERIES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        proven!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        proven!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        proven!({
            let words = _mm256_loadu_si256(x.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        proven!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn store(self, x: &mut [f32; LANES], v: Self::V) {
        proven!(_mm512_storeu_ps(x.as_mut_ptr(), v));
    }
    #[inline(always)]
    fn prefetch(self, x: *const u8) {
        // A prefetch never faults.
        proven!(_mm_prefetch::<_MM_HINT_T0>(x.cast()));
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        proven!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        proven!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        proven!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn ge(self, a: Self::V, b: Self::V) -> Self::M {
        proven!(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b))
    }
    #[inline(always)]
    fn unordered(self, a: Self::V, b: Self::V) -> Self::M {
        proven!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b))
    }
    #[inline(always)]
    fn range(self, from: usize, to: usize) -> Self::M {
        (((1u32 << to) - 1) & !((1u32 << from) - 1)) as u16
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_mask_blend_ps(m, b, a))
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
        proven!({
            let (low, high) = (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let eight = _mm256_add_ps(low, high);
            let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        proven!({
            let (low, high) = (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let eight = _mm256_max_ps(low, high);
            let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn sums(self) -> Self::D {
        proven!([_mm512_setzero_pd(), _mm512_setzero_pd()])
    }
    #[inline(always)]
    fn accumulate(self, d: Self::D, v: Self::V) -> Self::D {
        proven!({
            let (low, high) = (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            [_mm512_add_pd(d[0], _mm512_cvtps_pd(low)), _mm512_add_pd(d[1], _mm512_cvtps_pd(high))]
        })
    }
    #[inline(always)]
    fn total(self, d: Self::D) -> f64 {
        proven!(_mm512_reduce_add_pd(_mm512_add_pd(d[0], d[1])))
    }
    #[inline(always)]
    fn compress(self, out: &mut [f32; LANES], chosen: u16, v: Self::V) {
        // Compress in the register: compressing stores are microcode on Zen 4.
        proven!(_mm512_storeu_ps(out.as_mut_ptr(), _mm512_maskz_compress_ps(chosen, v)));
    }
    #[inline(always)]
    fn compress_ids(self, out: &mut [u32; LANES], chosen: u16, base: u32) {
        proven!({
            let lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let ids = _mm512_add_epi32(_mm512_set1_epi32(base as i32), lane);
            let packed = _mm512_maskz_compress_epi32(chosen, ids);
            _mm512_storeu_si512(out.as_mut_ptr().cast(), packed);
        });
    }
    #[inline(always)]
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES] {
        let mut out = v;
        proven!({
            // Quarters of four rows: vector 4i + c has columns c, 4 + c, 8 + c, 12 + c of rows
            // 4i to 4i + 3.
            for rows in out.as_chunks_mut::<4>().0 {
                let [a, b, c, d] = *rows;
                let low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let low2 = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let high2 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                rows[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2));
                rows[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2));
                rows[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2));
                rows[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2));
            }
            for c in 0..4 {
                let (a, b) = (out[c], out[4 + c]);
                let (d, e) = (out[8 + c], out[12 + c]);
                let even = _mm512_shuffle_f32x4::<0x88>(a, b);
                let odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let even2 = _mm512_shuffle_f32x4::<0x88>(d, e);
                let odd2 = _mm512_shuffle_f32x4::<0xdd>(d, e);
                out[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
                out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
            }
        });
        out
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], rest: f32) -> Self::V {
        assert!(x.len() <= LANES, "at most one vector");
        let mask = self.range(0, x.len());
        // SAFETY: the mask keeps the load within the slice; the token proves AVX-512.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(rest), mask, x.as_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, x: &mut [f32], v: Self::V) {
        assert!(x.len() <= LANES, "at most one vector");
        let mask = self.range(0, x.len());
        // SAFETY: the mask keeps the store within the slice; the token proves AVX-512.
        unsafe { _mm512_mask_storeu_ps(x.as_mut_ptr(), mask, v) };
    }
}
