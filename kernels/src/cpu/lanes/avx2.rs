//! [`Lanes`] on AVX2 with FMA and F16C: two registers per vector and per mask.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, LANES, Lanes};

/// Proof that the processor has AVX2, FMA and F16C; made in [`run`] only.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Compiles a kernel for AVX2.
///
/// # Safety
/// The processor has the features named.
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx2(()))
}

/// Calls intrinsics whose instruction set the token proves.
macro_rules! proven {
    ($($body:tt)*) => {{
        // SAFETY: an `Avx2` exists only where the processor has these instructions, and
        // references to 16 elements are readable or writable for 16 elements.
        unsafe { $($body)* }
    }};
}

/// The same instruction on both halves.
macro_rules! both {
    ($op:path, $a:expr, $b:expr) => {
        proven!([$op($a[0], $b[0]), $op($a[1], $b[1])])
    };
}

/// 2^n for integral n in -126..=127.
#[inline(always)]
fn power(_: Avx2, n: __m256i) -> __m256 {
    proven!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
        n,
        _mm256_set1_epi32(127)
    ))))
}

/// `a * 2^n` in two steps, as 2^128 alone is no f32.
#[inline(always)]
fn scale_half(s: Avx2, a: __m256, n: __m256) -> __m256 {
    proven!({
        let n = _mm256_cvtps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        _mm256_mul_ps(_mm256_mul_ps(a, power(s, half)), power(s, _mm256_sub_epi32(n, half)))
    })
}

impl Lanes for Avx2 {
    type V = [__m256; 2];
    type M = [__m256; 2];
    type D = [__m256d; 4];
    const QUERIES: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        proven!([_mm256_set1_ps(x), _mm256_set1_ps(x)])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        proven!([_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))])
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        proven!({
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        proven!([
            _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().add(8).cast())),
        ])
    }
    #[inline(always)]
    fn store(self, x: &mut [f32; LANES], v: Self::V) {
        proven!({
            _mm256_storeu_ps(x.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(x.as_mut_ptr().add(8), v[1]);
        });
    }
    #[inline(always)]
    fn prefetch(self, x: *const u8) {
        // A prefetch never faults.
        proven!(_mm_prefetch::<_MM_HINT_T0>(x.cast()));
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        proven!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        proven!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }
    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        [scale_half(self, a[0], n[0]), scale_half(self, a[1], n[1])]
    }
    #[inline(always)]
    fn ge(self, a: Self::V, b: Self::V) -> Self::M {
        both!(_mm256_cmp_ps::<_CMP_GE_OQ>, a, b)
    }
    #[inline(always)]
    fn unordered(self, a: Self::V, b: Self::V) -> Self::M {
        both!(_mm256_cmp_ps::<_CMP_UNORD_Q>, a, b)
    }
    #[inline(always)]
    fn range(self, from: usize, to: usize) -> Self::M {
        let (before, end, lanes) = proven!({
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let lanes = [lane, _mm256_add_epi32(lane, _mm256_set1_epi32(8))];
            (_mm256_set1_epi32(from as i32 - 1), _mm256_set1_epi32(to as i32), lanes)
        });
        let above = both!(_mm256_cmpgt_epi32, lanes, [before; 2]);
        let below = both!(_mm256_cmpgt_epi32, [end; 2], lanes);
        let within = both!(_mm256_and_si256, above, below);
        proven!([_mm256_castsi256_ps(within[0]), _mm256_castsi256_ps(within[1])])
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V {
        proven!([_mm256_blendv_ps(b[0], a[0], m[0]), _mm256_blendv_ps(b[1], a[1], m[1])])
    }
    #[inline(always)]
    fn bits(self, m: Self::M) -> u16 {
        proven!((_mm256_movemask_ps(m[0]) | (_mm256_movemask_ps(m[1]) << 8)) as u16)
    }
    #[inline(always)]
    fn lanes(self, bits: u16) -> Self::M {
        proven!({
            let all = _mm256_set1_epi32(i32::from(bits));
            let low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let high = _mm256_slli_epi32::<8>(low);
            let low = _mm256_cmpeq_epi32(_mm256_and_si256(all, low), low);
            let high = _mm256_cmpeq_epi32(_mm256_and_si256(all, high), high);
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        })
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        proven!({
            let eight = _mm256_add_ps(v[0], v[1]);
            let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        proven!({
            let eight = _mm256_max_ps(v[0], v[1]);
            let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn sums(self) -> Self::D {
        proven!([_mm256_setzero_pd(); 4])
    }
    #[inline(always)]
    fn accumulate(self, d: Self::D, v: Self::V) -> Self::D {
        proven!({
            let (a, b) = (v[0], v[1]);
            let quarters = [
                _mm256_castps256_ps128(a),
                _mm256_extractf128_ps::<1>(a),
                _mm256_castps256_ps128(b),
                _mm256_extractf128_ps::<1>(b),
            ];
            [
                _mm256_add_pd(d[0], _mm256_cvtps_pd(quarters[0])),
                _mm256_add_pd(d[1], _mm256_cvtps_pd(quarters[1])),
                _mm256_add_pd(d[2], _mm256_cvtps_pd(quarters[2])),
                _mm256_add_pd(d[3], _mm256_cvtps_pd(quarters[3])),
            ]
        })
    }
    #[inline(always)]
    fn total(self, d: Self::D) -> f64 {
        proven!({
            let four = _mm256_add_pd(_mm256_add_pd(d[0], d[1]), _mm256_add_pd(d[2], d[3]));
            let (low, high) = (_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            let two = _mm_add_pd(low, high);
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        })
    }
    #[inline(always)]
    fn compress(self, out: &mut [f32; LANES], chosen: u16, v: Self::V) {
        let mut all = [0.0; LANES];
        self.store(&mut all, v);
        super::Portable.compress(out, chosen, all);
    }
    #[inline(always)]
    fn compress_ids(self, out: &mut [u32; LANES], chosen: u16, base: u32) {
        super::Portable.compress_ids(out, chosen, base);
    }
    #[inline(always)]
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES] {
        let mut out = v;
        // Four squares of 8 x 8: rows from 8a on, columns from 8b on.
        for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut rows = [v[0][0]; 8];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = v[8 * a + i][b];
            }
            proven!({
                // Vector 4i + c has columns c and 4 + c of rows 4i to 4i + 3.
                for rows in rows.as_chunks_mut::<4>().0 {
                    let [a, b, c, d] = *rows;
                    let low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                    let high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                    let low2 = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
                    let high2 = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
                    rows[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, low2));
                    rows[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, low2));
                    rows[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high, high2));
                    rows[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high, high2));
                }
                for c in 0..4 {
                    let (x, y) = (rows[c], rows[4 + c]);
                    out[8 * b + c][a] = _mm256_permute2f128_ps::<0x20>(x, y);
                    out[8 * b + 4 + c][a] = _mm256_permute2f128_ps::<0x31>(x, y);
                }
            });
        }
        out
    }
}
