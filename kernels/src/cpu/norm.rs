//! Norms of rows and the residual stream.
//!
//! A row is one task: its sums are taken in four vector sums in a fixed order, so a row gets the
//! same bits in any batch. Means and roots are taken in f32, as models do.

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::{sum, sum_of_squares};
use super::pool::Pool;
use super::rows::for_rows;
use super::tensor::{Shared, Vector};
use crate::compute::{self, NormKind};

/// A norm with its weights at hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) kind: NormKind,
    pub(crate) weight: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) eps: f32,
}

impl<'a> Weights<'a> {
    pub(crate) fn of(how: &compute::Norm<'a, Vector>) -> Self {
        let bias = how.bias.map(Vector::values);
        let weight = how.weight.values();
        assert!(bias.is_none_or(|b| b.len() == weight.len()), "a bias of another length");
        Self { kind: how.kind, weight, bias, eps: how.eps }
    }

    /// Elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.weight.len()
    }

    /// The norm of `len` elements that use the weights from `at` on.
    pub(crate) fn part(self, at: usize, len: usize) -> Self {
        let bias = self.bias.map(|b| &b[at..at + len]);
        Self { weight: &self.weight[at..at + len], bias, ..self }
    }
}

/// `out = norm(x)`; in place where `x` is `None`.
pub(crate) struct Norm<'a> {
    pub(crate) x: Option<&'a [f32]>,
    pub(crate) how: Weights<'a>,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { x, how, out } = self;
        let len = out.len();
        assert!(how.width() == len && x.is_none_or(|x| x.len() == len), "norm weights");
        let row = x.unwrap_or(out);
        let mean = match how.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => sum(s, row) / len as f32,
        };
        let squares = sum_of_squares(s, row, mean);
        let factor = 1.0 / (squares / len as f32 + how.eps).sqrt();
        match x {
            Some(x) => {
                for ((o, x), w) in out.iter_mut().zip(x).zip(how.weight) {
                    *o = (x - mean) * factor * w;
                }
            }
            None => {
                for (o, w) in out.iter_mut().zip(how.weight) {
                    *o = (*o - mean) * factor * w;
                }
            }
        }
        if let Some(bias) = how.bias {
            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
    }
}

/// `x += scale * delta`, the product rounded first, as models do.
struct Add<'a> {
    x: &'a mut [f32],
    delta: &'a [f32],
    scale: f32,
}

impl Kernel for Add<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let (x, x_rest) = self.x.as_chunks_mut::<LANES>();
        let (delta, delta_rest) = self.delta.as_chunks::<LANES>();
        for (x, delta) in x.iter_mut().zip(delta) {
            let sum = s.add(s.load(x), s.mul(s.load(delta), s.splat(self.scale)));
            s.store(x, sum);
        }
        for (x, delta) in x_rest.iter_mut().zip(delta_rest) {
            *x += delta * self.scale;
        }
    }
}

/// `out[r] = norm(x[r])` for rows of the weights' width.
pub(crate) fn norm(pool: &Pool, isa: Isa, x: &[f32], how: Weights<'_>, out: &mut [f32]) {
    let width = how.width();
    assert_eq!(x.len(), out.len(), "norm shapes");
    let (rows, out) = (x.len() / width, Shared::new(out));
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            let x = Some(&x[row * width..][..width]);
            dispatch(isa, Norm { x, how, out });
        }
    });
}

/// `residual += scale * delta; out = norm(residual)`, a row at a time while it is in the cache.
pub(crate) fn add_norm(
    pool: &Pool,
    isa: Isa,
    (residual, delta, scale): (&mut [f32], &[f32], f32),
    how: Weights<'_>,
    out: &mut [f32],
) {
    let width = how.width();
    assert!(residual.len() == out.len() && delta.len() == out.len(), "norm shapes");
    let rows = out.len() / width;
    let (residual, out) = (Shared::new(residual), Shared::new(out));
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let x = unsafe { residual.part(row * width, width) };
            // SAFETY: as above.
            let out = unsafe { out.part(row * width, width) };
            dispatch(isa, Add { x: &mut *x, delta: &delta[row * width..][..width], scale });
            dispatch(isa, Norm { x: Some(x), how, out });
        }
    });
}

/// `x += scale * delta` for rows of `width`.
pub(crate) fn add(
    pool: &Pool,
    isa: Isa,
    (x, delta, scale): (&mut [f32], &[f32], f32),
    width: usize,
) {
    assert_eq!(x.len(), delta.len(), "sum shapes");
    let (rows, x) = (x.len() / width, Shared::new(x));
    for_rows(pool, rows, width, &|range, _| {
        let (at, len) = (range.start * width, range.len() * width);
        // SAFETY: each row belongs to one task.
        let x = unsafe { x.part(at, len) };
        dispatch(isa, Add { x, delta: &delta[at..][..len], scale });
    });
}
