//! The functions inside an MLP, gates of whole rows, and the cap of logits: all element by element.

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::{exp, logistic, silu, tanh};
use super::pool::Pool;
use super::rows::for_rows;
use super::tensor::Shared;
use crate::compute::Activation;

/// sqrt(2 / pi), and the weight of the cube in Gelu's approximation (arXiv 1606.08415).
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;

/// `e^(z^2) erfc(z) / t` with `t = 1 / (1 + 0.38 z)` as a series in t, the highest power first:
/// a Chebyshev fit over z in 0..10, off by 3e-8 of the result.
const ERFC_RATE: f32 = 0.38;
const ERFC_SERIES: [f32; 9] = [
    0.058_468_265,
    -0.259_958_9,
    0.359_293_9,
    -0.156_521_38,
    0.226_827_78,
    0.139_915_29,
    0.203_608_7,
    0.213_957_41,
    0.214_408_94,
];

/// x * normal_cdf(x). The tail is computed as such, so that negative x keep their digits.
#[inline(always)]
fn gelu<S: Lanes>(s: S, x: S::V) -> S::V {
    let size = s.max(s.sub(s.splat(0.0), x), x);
    let z = s.mul(size, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(s.splat(1.0), s.fma(z, s.splat(ERFC_RATE), s.splat(1.0)));
    let mut series = s.splat(ERFC_SERIES[0]);
    for factor in &ERFC_SERIES[1..] {
        series = s.fma(series, t, s.splat(*factor));
    }
    // e^-(x^2 / 2) with what the rounding of x^2 / 2 dropped.
    let half = s.mul(size, s.splat(0.5));
    let power = s.mul(size, half);
    let dropped = s.fma(size, half, s.sub(s.splat(0.0), power));
    let e = exp(s, s.sub(s.splat(0.0), power));
    let e = s.sub(e, s.mul(e, dropped));
    let tail = s.mul(s.mul(s.mul(series, t), e), s.splat(0.5));
    let cdf = s.select(s.ge(x, s.splat(0.0)), s.sub(s.splat(1.0), tail), tail);
    // Beyond 14 the tail is 0, and infinity minus infinity must not make it a NaN.
    let cdf = s.select(s.ge(s.splat(14.0), size), cdf, s.splat(1.0));
    let far = s.select(s.ge(x, s.splat(-14.0)), x, s.splat(-0.0));
    s.select(s.unordered(x, x), x, s.mul(far, cdf))
}

/// Gelu with a tanh: `(1 + tanh u) / 2` is the logistic function of 2u.
#[inline(always)]
fn gelu_tanh<S: Lanes>(s: S, x: S::V) -> S::V {
    let cube = s.fma(s.mul(x, x), s.splat(TANH_CUBE), s.splat(1.0));
    let u = s.mul(s.mul(x, cube), s.splat(2.0 * TANH_SCALE));
    logistic(s, u, x)
}

/// f(x); for [`Activation::Clamped`] what the gate gives.
#[inline(always)]
fn value<S: Lanes>(s: S, f: Activation, x: S::V) -> S::V {
    // The bound stands first: min and max give back their second argument for a NaN.
    match f {
        Activation::Silu => silu(s, x),
        Activation::Gelu => gelu(s, x),
        Activation::GeluTanh => gelu_tanh(s, x),
        Activation::Relu => s.max(s.splat(0.0), x),
        Activation::ReluSquared => {
            let x = s.max(s.splat(0.0), x);
            s.mul(x, x)
        }
        Activation::Clamped { alpha, limit } => {
            let x = s.min(s.splat(limit), x);
            logistic(s, s.mul(x, s.splat(alpha)), x)
        }
    }
}

/// What a gate multiplies.
#[inline(always)]
fn gated<S: Lanes>(s: S, f: Activation, up: S::V) -> S::V {
    match f {
        Activation::Clamped { limit, .. } => {
            let up = s.max(s.splat(-limit), s.min(s.splat(limit), up));
            s.add(up, s.splat(1.0))
        }
        _ => up,
    }
}

/// `out = f(x)`, or `f(x) * up`.
struct Activate<'a> {
    f: Activation,
    x: &'a [f32],
    up: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { f, x, up, out } = self;
        let (x, x_rest) = x.as_chunks::<LANES>();
        let (out, out_rest) = out.as_chunks_mut::<LANES>();
        let Some(up) = up else {
            for (x, out) in x.iter().zip(out) {
                s.store(out, value(s, f, s.load(x)));
            }
            s.store_part(out_rest, value(s, f, s.load_part(x_rest, 0.0)));
            return;
        };
        let (up, up_rest) = up.as_chunks::<LANES>();
        for ((x, up), out) in x.iter().zip(up).zip(out) {
            s.store(out, s.mul(value(s, f, s.load(x)), gated(s, f, s.load(up))));
        }
        let up = gated(s, f, s.load_part(up_rest, 0.0));
        s.store_part(out_rest, s.mul(value(s, f, s.load_part(x_rest, 0.0)), up));
    }
}

/// `out[r] = f(x[r])`, or `f(x[r][..width]) * x[r][width..]`, for rows of `out` of `width`.
pub(crate) fn activate(
    pool: &Pool,
    isa: Isa,
    (f, gated): (Activation, bool),
    x: &[f32],
    out: &mut [f32],
    width: usize,
) {
    let stride = if gated { 2 * width } else { width };
    assert_eq!(x.len() * width, stride * out.len(), "activation shapes");
    assert!(gated || !matches!(f, Activation::Clamped { .. }), "{f:?} has a gate");
    let (rows, out) = (out.len() / width, Shared::new(out));
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            let (x, up) = x[row * stride..][..stride].split_at(width);
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            dispatch(isa, Activate { f, x, up: gated.then_some(up), out });
        }
    });
}

/// `x *= sigmoid(gate)`.
struct Gate<'a> {
    x: &'a mut [f32],
    gate: f32,
}

impl Kernel for Gate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let factor = logistic(s, s.splat(self.gate), s.splat(1.0));
        for x in self.x.chunks_mut(LANES) {
            let y = s.mul(s.load_part(x, 0.0), factor);
            s.store_part(x, y);
        }
    }
}

/// `x[r] *= sigmoid(gate[r][0])` for rows of `width`; rows of the gate have a width of their own.
pub(crate) fn gate_rows(
    pool: &Pool,
    isa: Isa,
    x: &mut [f32],
    (gate, gate_width): (&[f32], usize),
    width: usize,
) {
    let (rows, x) = (x.len() / width, Shared::new(x));
    assert_eq!(gate.len(), rows * gate_width, "a gate for each row");
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let x = unsafe { x.part(row * width, width) };
            dispatch(isa, Gate { x, gate: gate[row * gate_width] });
        }
    });
}

/// `x = cap(scale * x)`.
struct Cap<'a> {
    x: &'a mut [f32],
    scale: f32,
    soft_cap: Option<f32>,
}

impl Kernel for Cap<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        for x in self.x.chunks_mut(LANES) {
            let mut y = s.mul(s.load_part(x, 0.0), s.splat(self.scale));
            if let Some(cap) = self.soft_cap {
                y = s.mul(s.splat(cap), tanh(s, s.div(y, s.splat(cap))));
            }
            s.store_part(x, y);
        }
    }
}

/// Elements that are capped as one: a row of logits is wide enough for several threads.
const CAP_WIDTH: usize = 4096;

/// `x = scale * x`, then `x = c * tanh(x / c)`, for all elements.
pub(crate) fn cap(pool: &Pool, isa: Isa, x: &mut [f32], scale: f32, soft_cap: Option<f32>) {
    if scale == 1.0 && soft_cap.is_none() {
        return;
    }
    let (len, x) = (x.len(), Shared::new(x));
    for_rows(pool, len.div_ceil(CAP_WIDTH), CAP_WIDTH, &|range, _| {
        let (at, end) = (range.start * CAP_WIDTH, len.min(range.end * CAP_WIDTH));
        // SAFETY: each stretch belongs to one task.
        let x = unsafe { x.part(at, end - at) };
        dispatch(isa, Cap { x, scale, soft_cap });
    });
}
