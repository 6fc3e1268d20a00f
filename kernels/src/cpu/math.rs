//! Exponential, logistic and hyperbolic tangent over [`Lanes`], and sums of a row.
//!
//! Errors, measured by the tests here: `exp` 2 ulp, `tanh` 4 ulp, `silu` 4 ulp. Results below the
//! smallest normal f32 become 0. They do not depend on the lane or on neighbours.

use super::lanes::{LANES, Lanes};

/// ln 2 in two parts, the first with so few bits that n * HIGH is exact without a fused multiply.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// e^x is infinite above, and no normal f32 below.
const EXP_MAX: f32 = 88.722_84;
const EXP_MIN: f32 = -87.336_54;

/// x = n ln 2 + r: returns n and e^r - 1 for |r| <= ln 2 / 2. The series stops at r^7 / 7!: the
/// next term is 5e-9 of the result.
#[inline(always)]
fn reduced<S: Lanes>(s: S, x: S::V) -> (S::V, S::V) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut series = s.splat(1.0 / 5040.0);
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        series = s.fma(series, r, s.splat(factor));
    }
    (n, s.fma(s.mul(r, r), series, r))
}

/// e^x; 0 below -87.3 (so for -inf), infinite above 88.7, NaN of NaN.
#[inline(always)]
pub(crate) fn exp<S: Lanes>(s: S, x: S::V) -> S::V {
    // The bound stands first: min and max give back their second argument for a NaN.
    let bounded = s.max(s.splat(EXP_MIN), s.min(s.splat(EXP_MAX), x));
    let (n, part) = reduced(s, bounded);
    let value = s.scale(s.add(part, s.splat(1.0)), n);
    let value = s.select(s.ge(s.splat(EXP_MIN), x), s.splat(0.0), value);
    s.select(s.ge(x, s.splat(EXP_MAX)), s.splat(f32::INFINITY), value)
}

/// tanh x = expm1(2x) / (expm1(2x) + 2), which keeps small arguments exact.
#[inline(always)]
pub(crate) fn tanh<S: Lanes>(s: S, x: S::V) -> S::V {
    // From 10 on tanh is 1 in f32.
    let bounded = s.max(s.splat(-10.0), s.min(s.splat(10.0), x));
    let (n, part) = reduced(s, s.add(bounded, bounded));
    let power = s.scale(s.splat(1.0), n);
    let expm1 = s.fma(power, part, s.sub(power, s.splat(1.0)));
    s.div(expm1, s.add(expm1, s.splat(2.0)))
}

/// 1 / (1 + e^-x) times `by`.
#[inline(always)]
pub(crate) fn logistic<S: Lanes>(s: S, x: S::V, by: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(by, s.add(s.splat(1.0), e))
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu<S: Lanes>(s: S, x: S::V) -> S::V {
    logistic(s, x, x)
}

/// e^x of one number, by the same arithmetic as the vectors.
#[inline(always)]
pub(crate) fn exp_one<S: Lanes>(s: S, x: f32) -> f32 {
    let mut all = [0.0; LANES];
    s.store(&mut all, exp(s, s.splat(x)));
    all[0]
}

/// Adds up a row in four interleaved vector sums: short chains, and rounding errors that grow with
/// a 64th of the length. `term` gets a sum and 16 elements; `rest` fills up the last 16.
macro_rules! four_sums {
    ($s:ident, $x:expr, $rest:expr, |$total:ident, $v:ident| $term:expr) => {{
        let (vectors, rest) = $x.as_chunks::<LANES>();
        let (fours, single) = vectors.as_chunks::<4>();
        let mut sums = [$s.splat(0.0); 4];
        for four in fours {
            for (sum, v) in sums.iter_mut().zip(four) {
                let ($total, $v) = (*sum, $s.load(v));
                *sum = $term;
            }
        }
        for v in single {
            let ($total, $v) = (sums[0], $s.load(v));
            sums[0] = $term;
        }
        let ($total, $v) = (sums[1], $s.load_part(rest, $rest));
        sums[1] = $term;
        $s.sum($s.add($s.add(sums[0], sums[1]), $s.add(sums[2], sums[3])))
    }};
}

/// Sum of a row.
#[inline(always)]
pub(crate) fn sum<S: Lanes>(s: S, x: &[f32]) -> f32 {
    four_sums!(s, x, 0.0, |sum, v| s.add(sum, v))
}

/// Sum of squares of a row's differences from `mean`.
#[inline(always)]
pub(crate) fn sum_of_squares<S: Lanes>(s: S, x: &[f32], mean: f32) -> f32 {
    let center = s.splat(mean);
    four_sums!(s, x, mean, |sum, v| {
        let v = s.sub(v, center);
        s.fma(v, v, sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::lanes::{Kernel, dispatch};
    use crate::cpu::tests::isas;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Tanh,
        Silu,
    }

    struct Apply(Function, [f32; LANES]);

    impl Kernel for Apply {
        type Out = [f32; LANES];
        #[inline(always)]
        fn run<S: Lanes>(self, s: S) -> [f32; LANES] {
            let x = s.load(&self.1);
            let mut out = [0.0; LANES];
            let y = match self.0 {
                Function::Exp => exp(s, x),
                Function::Tanh => tanh(s, x),
                Function::Silu => silu(s, x),
            };
            s.store(&mut out, y);
            out
        }
    }

    fn one(isa: Isa, function: Function, x: f32) -> f32 {
        dispatch(isa, Apply(function, [x; LANES]))[3]
    }

    /// Greatest error in units of the last place of the exact result, over `from..to`.
    fn error_ulp(function: Function, exact: fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let mut worst: f64 = 0.0;
        for isa in isas() {
            for step in 0..20_000 {
                let at = |i: usize| from + (to - from) * ((step * LANES + i) as f32 / 320_000.0);
                let x: [f32; LANES] = std::array::from_fn(at);
                let y = dispatch(isa, Apply(function, x));
                for (x, y) in x.into_iter().zip(y) {
                    let want = exact(f64::from(x));
                    let size = want.abs().max(f64::from(f32::MIN_POSITIVE));
                    let ulp = (size.log2().floor() - 23.0).exp2();
                    worst = worst.max((f64::from(y) - want).abs() / ulp);
                }
            }
        }
        worst
    }

    #[test]
    fn errors_stay_within_what_the_header_says() {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        for (name, function, exact, from, to, limit) in [
            ("exp", Function::Exp, f64::exp as fn(f64) -> f64, -87.3, 88.7, 2.0),
            ("exp near 0", Function::Exp, f64::exp, -1.0, 1.0, 2.0),
            ("tanh", Function::Tanh, f64::tanh, -12.0, 12.0, 4.0),
            ("tanh near 0", Function::Tanh, f64::tanh, -0.5, 0.5, 4.0),
            ("silu", Function::Silu, silu, -80.0, 80.0, 4.0),
        ] {
            let error = error_ulp(function, exact, from, to);
            assert!(error <= limit, "{name}: {error} ulp");
        }
    }

    #[test]
    fn limits() {
        for isa in isas() {
            assert_eq!(one(isa, Function::Exp, f32::NEG_INFINITY), 0.0);
            assert_eq!(one(isa, Function::Exp, -1e30), 0.0);
            assert_eq!(one(isa, Function::Exp, 0.0), 1.0);
            assert_eq!(one(isa, Function::Exp, -0.0), 1.0);
            assert_eq!(one(isa, Function::Exp, 90.0), f32::INFINITY);
            assert!(one(isa, Function::Exp, f32::NAN).is_nan());
            assert!(one(isa, Function::Tanh, f32::NAN).is_nan());
            assert_eq!(one(isa, Function::Tanh, 1e30), 1.0);
            assert_eq!(one(isa, Function::Tanh, f32::NEG_INFINITY), -1.0);
        }
    }
}
