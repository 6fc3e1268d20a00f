//! Rows picked by number: token embeddings, and the activations that need logits.

use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::matrix::Matrix;
use super::pool::Pool;
use super::rows::for_rows;
use super::tensor::{PerWorker, Shared};

/// `x *= factor`.
struct Scale<'a> {
    x: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, _: S) {
        self.x.iter_mut().for_each(|x| *x *= self.factor);
    }
}

/// `out[r] = table[tokens[r]] * scale`.
pub(crate) fn embed(
    pool: &Pool,
    isa: Isa,
    table: &Matrix,
    tokens: &[u32],
    scale: f32,
    out: &mut [f32],
) {
    let width = table.cols();
    assert_eq!(out.len(), tokens.len() * width, "embedding width");
    let out = Shared::new(out);
    for_rows(pool, tokens.len(), width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            table.row(tokens[row] as usize, out);
            if scale != 1.0 {
                dispatch(isa, Scale { x: out, factor: scale });
            }
        }
    });
}

/// `x += y`.
struct Sum<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for Sum<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, _: S) {
        self.x.iter_mut().zip(self.y).for_each(|(x, y)| *x += y);
    }
}

/// `out[r] += table[rows[r]]`; `scratch` holds a row of the table for each worker.
pub(crate) fn embed_add(
    pool: &Pool,
    isa: Isa,
    table: &Matrix,
    rows: &[u32],
    scratch: &PerWorker<Vec<f32>>,
    out: &mut [f32],
) {
    let width = table.cols();
    assert_eq!(out.len(), rows.len() * width, "embedding width");
    let out = Shared::new(out);
    for_rows(pool, rows.len(), width, &|range, worker| {
        // SAFETY: the worker's own scratch, taken once.
        let y = &mut unsafe { scratch.of(worker) }[..width];
        for row in range {
            table.row(rows[row] as usize, y);
            // SAFETY: each row belongs to one task.
            let x = unsafe { out.part(row * width, width) };
            dispatch(isa, Sum { x, y });
        }
    });
}

/// `out[i] = x[rows[i]]` for rows of `width`.
pub(crate) fn select(x: &[f32], rows: &[u32], out: &mut [f32], width: usize) {
    assert_eq!(out.len(), rows.len() * width, "selected rows");
    for (out, &row) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(&x[row as usize * width..][..width]);
    }
}
