//! RMS norms and the residual stream.
//!
//! A row is one task: its sum of squares is taken in four vector sums in a fixed order, so a row
//! gets the same bits in any batch. The mean's root is taken in f32, as models do.

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::sum_of_squares;
use super::pool::Pool;
use super::rows::for_rows;
use super::tensor::Shared;

/// `out = x / rms(x) * weight`; in place where `x` is `None`.
pub(crate) struct Norm<'a> {
    pub(crate) x: Option<&'a [f32]>,
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { x, weight, eps, out } = self;
        assert_eq!(weight.len(), out.len(), "norm weights");
        let squares = sum_of_squares(s, x.unwrap_or(out));
        let factor = 1.0 / (squares / out.len() as f32 + eps).sqrt();
        match x {
            Some(x) => {
                for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
                    *o = x * factor * w;
                }
            }
            None => {
                for (o, w) in out.iter_mut().zip(weight) {
                    *o = *o * factor * w;
                }
            }
        }
    }
}

/// `x += delta`.
struct Add<'a> {
    x: &'a mut [f32],
    delta: &'a [f32],
}

impl Kernel for Add<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let (x, x_rest) = self.x.as_chunks_mut::<LANES>();
        let (delta, delta_rest) = self.delta.as_chunks::<LANES>();
        for (x, delta) in x.iter_mut().zip(delta) {
            let sum = s.add(s.load(x), s.load(delta));
            s.store(x, sum);
        }
        for (x, delta) in x_rest.iter_mut().zip(delta_rest) {
            *x += delta;
        }
    }
}

/// `out[r] = x[r] / rms(x[r]) * weight` for rows of `weight.len()`.
pub(crate) fn rms_norm(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    assert_eq!(x.len(), out.len(), "norm shapes");
    let (rows, out) = (x.len() / width, Shared::new(out));
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            let x = Some(&x[row * width..][..width]);
            dispatch(isa, Norm { x, weight, eps, out });
        }
    });
}

/// `residual += delta; out = rms_norm(residual)`, a row at a time while it is in the cache.
pub(crate) fn add_rms_norm(
    pool: &Pool,
    isa: Isa,
    (residual, delta): (&mut [f32], &[f32]),
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    assert!(residual.len() == out.len() && delta.len() == out.len(), "norm shapes");
    let rows = out.len() / width;
    let (residual, out) = (Shared::new(residual), Shared::new(out));
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let x = unsafe { residual.part(row * width, width) };
            // SAFETY: as above.
            let out = unsafe { out.part(row * width, width) };
            dispatch(isa, Add { x: &mut *x, delta: &delta[row * width..][..width] });
            dispatch(isa, Norm { x: Some(x), weight, eps, out });
        }
    });
}

/// `x += delta` for rows of `width`.
pub(crate) fn add(pool: &Pool, isa: Isa, x: &mut [f32], delta: &[f32], width: usize) {
    assert_eq!(x.len(), delta.len(), "sum shapes");
    let (rows, x) = (x.len() / width, Shared::new(x));
    for_rows(pool, rows, width, &|range, _| {
        let (at, len) = (range.start * width, range.len() * width);
        // SAFETY: each row belongs to one task.
        let x = unsafe { x.part(at, len) };
        dispatch(isa, Add { x, delta: &delta[at..][..len] });
    });
}
