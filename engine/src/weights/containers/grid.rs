//! [`Grid`]: scales of a matrix, one per block of some rows by some columns.

use super::super::LoadError;
use super::super::shards::Tensor;
use super::blocks;

/// Scales (or zero points) of a matrix.
pub(super) struct Grid<'a> {
    tensor: Tensor<'a>,
    /// Rows and columns that share one.
    high: usize,
    wide: usize,
    /// How many there are side by side.
    across: usize,
    /// Empty until read.
    values: Vec<f32>,
}

impl<'a> Grid<'a> {
    /// Finds out from a tensor's shape what shares a scale: everything, each row, or blocks of
    /// `block` rows and columns.
    ///
    /// # Errors
    /// It is none of them.
    pub(super) fn new(
        tensor: Tensor<'a>,
        rows: usize,
        cols: usize,
        block: Option<[usize; 2]>,
    ) -> Result<Self, LoadError> {
        let grid = |high: usize, wide: usize| {
            let across = cols.div_ceil(wide.max(1));
            Ok(Self { tensor, high: high.max(1), wide: wide.max(1), across, values: Vec::new() })
        };
        let counted =
            |high: usize, wide: usize| [rows.div_ceil(high) as u64, cols.div_ceil(wide) as u64];
        match (tensor.dims, block) {
            ([] | [1] | [1, 1], _) => grid(rows, cols),
            (dims, Some([high, wide])) if dims == counted(high, wide) => grid(high, wide),
            ([one] | [one, 1], _) if *one == rows as u64 => grid(1, cols),
            _ => {
                let [high, wide] = block.unwrap_or([1, cols]);
                let [down, across] = counted(high, wide);
                let found = super::super::shape_text(tensor.dims);
                Err(tensor.wrong(format!(
                    "is {found}; a matrix of {rows} x {cols} has one scale, {rows} x 1 or \
                     {down} x {across}"
                )))
            }
        }
    }

    /// Columns that share a scale.
    pub(super) fn wide(&self) -> usize {
        self.wide
    }

    pub(super) fn tensor(&self) -> Tensor<'a> {
        self.tensor
    }

    /// Reads the scales.
    ///
    /// # Errors
    /// They are of another type, or one of them is no finite number.
    pub(super) fn prepare(&mut self) -> Result<(), LoadError> {
        self.values = finite(&self.tensor)?;
        Ok(())
    }

    /// The scale of an element.
    pub(super) fn at(&self, row: usize, col: usize) -> f32 {
        self.values[row / self.high * self.across + col / self.wide]
    }

    /// Where the scale of an element lies among all.
    pub(super) fn index(&self, row: usize, col: usize) -> usize {
        row / self.high * self.across + col / self.wide
    }
}

/// The scales of a tensor, all finite.
pub(super) fn finite(tensor: &Tensor<'_>) -> Result<Vec<f32>, LoadError> {
    let Some(values) = blocks::numbers(tensor) else {
        let found = tensor.dtype.name;
        return Err(tensor.wrong(format!("has elements of type {found}, which no scale has")));
    };
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => {
            let found = values[at];
            Err(tensor.wrong(format!("holds {found} at {at}, which is no scale; it is damaged")))
        }
    }
}
