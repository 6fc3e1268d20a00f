//! Matrix products: activations by packed weights.
//!
//! Activations are staged once a product (rounded or not, in tiles), then tasks of some panels by
//! some tiles run on the pool. Every output element adds up its products in an order that depends
//! on k alone: a row computed by itself equals the same row inside any batch, bit for bit, on any
//! number of threads. It must not know what a product is for.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
mod codes;
pub(crate) mod diagonal;
mod floats;
mod fused;
pub(crate) mod grouped;
mod output;
mod plan;
mod portable;
mod staging;
#[cfg(test)]
mod tests;
mod wide;
mod widen;

use crate::compute::Error;
use crate::cpu::matrix::{Matrix, Memory};
use crate::cpu::pool::Pool;

/// Room for staged activations. Claimed at set-up: [`Scratch::reserve`] once per matrix.
#[derive(Default)]
pub struct Scratch {
    staged: Option<Memory>,
    rows: usize,
    cols: usize,
}

impl Scratch {
    /// Makes room for products of up to `rows_max` rows and `cols_max` columns, if there is not.
    ///
    /// # Errors
    /// No memory; what was reserved before stays.
    pub fn reserve(&mut self, rows_max: usize, cols_max: usize) -> Result<(), Error> {
        if rows_max <= self.rows && cols_max <= self.cols {
            return Ok(());
        }
        let (rows, cols) = (rows_max.max(self.rows), cols_max.max(self.cols));
        let bytes = staging::bytes_for(rows, cols).unwrap_or(usize::MAX);
        let staged = Memory::zeroed(bytes, "activations of matrix products")?;
        *self = Self { staged: Some(staged), rows, cols };
        Ok(())
    }

    /// Memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.staged.as_ref().map_or(0, Memory::len)
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("rows", &self.rows).field("cols", &self.cols).finish()
    }
}

/// `out[r] = matrix * x[r] + bias`: `x` is `[rows, matrix.cols()]`, `out` `[rows, matrix.rows()]`,
/// `bias` `[matrix.rows()]`.
///
/// # Panics
/// Sizes that do not fit each other or what the scratch reserved: a bug in the caller.
pub fn matmul(
    pool: &Pool,
    scratch: &mut Scratch,
    x: &[f32],
    rows: usize,
    matrix: &Matrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let (features, cols) = (matrix.rows(), matrix.cols());
    assert_eq!(x.len(), rows * cols, "activations of {rows} x {cols}");
    assert_eq!(out.len(), rows * features, "output of {rows} x {features}");
    assert!(bias.is_none_or(|b| b.len() == features), "a bias of another length");
    if rows == 0 || features == 0 {
        return;
    }
    assert!(rows <= scratch.rows && cols <= scratch.cols, "more than the scratch reserved");
    let staged = scratch.staged.as_mut().expect("reserved: rows are not 0");
    plan::run(pool, staged, x, matrix, bias, out);
}
