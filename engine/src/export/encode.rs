//! Rows of a stored matrix, encoded anew by several threads, and what that did to them.

use std::ops::Range;

use kernels::Format;
use kernels::quantize;
use kernels::reference::dequant;

use crate::weights::TensorView;

/// Threads take multiples of so many rows: fewer are not worth a thread.
const ROWS_AT_ONCE: usize = 16;

/// What was encoded into one format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The format.
    pub format: Format,
    /// Tensors in it.
    pub tensors: usize,
    /// Their elements.
    pub elements: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sums of squares: of the differences, of the values.
    squares: [f64; 2],
}

impl Spread {
    pub(super) fn new(format: Format) -> Self {
        Self { format, tensors: 0, elements: 0, bytes: 0, squares: [0.0; 2] }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.tensors += more.tensors;
        self.elements += more.elements;
        self.bytes += more.bytes;
        for (sum, square) in self.squares.iter_mut().zip(more.squares) {
            *sum += square;
        }
    }

    /// Root of the mean square of the differences, as a share of that of the values.
    #[must_use]
    pub fn error(&self) -> f64 {
        let [differences, values] = self.squares;
        if values > 0.0 { (differences / values).sqrt() } else { 0.0 }
    }
}

/// A matrix, or a vector as one row, on its way.
pub(super) struct Piece<'a> {
    /// As it is stored.
    pub(super) view: TensorView<'a>,
    /// Added to every value.
    pub(super) shift: f32,
    /// Rows come in runs of so many, each of two halves that are to alternate.
    pub(super) alternate: Option<usize>,
}

impl Piece<'_> {
    /// The stored row that becomes row `row`.
    fn stored(&self, row: usize) -> usize {
        match self.alternate {
            None => row,
            Some(run) => row / run * run + row % run / 2 + row % 2 * (run / 2),
        }
    }

    fn bytes(&self, row: usize) -> &[u8] {
        let size = self.view.format.row_bytes(self.view.cols);
        &self.view.bytes[self.stored(row) * size..][..size]
    }

    /// Bytes may go over as they are.
    fn is_copy(&self, format: Format) -> bool {
        self.view.format == format && self.shift == 0.0 && self.view.order.is_none()
    }

    fn widen(&self, row: usize, stored: &mut [f32], values: &mut [f32]) {
        dequant::row(self.view.format, self.bytes(row), stored);
        match &self.view.order {
            None => values.copy_from_slice(stored),
            Some(order) => {
                for (&to, value) in order.iter().zip(stored.iter()) {
                    values[to as usize] = *value;
                }
            }
        }
        values.iter_mut().for_each(|value| *value += self.shift);
    }

    /// Encodes the rows of a run; says what is wrong with the first value that cannot be.
    fn encode(
        &self,
        rows: Range<usize>,
        format: Format,
        out: &mut [u8],
    ) -> Result<[f64; 2], String> {
        let cols = self.view.cols;
        let [mut stored, mut values, mut back] =
            [vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]];
        let mut squares = [0.0; 2];
        let most = if format == Format::F16 { f32::from(half::f16::MAX) } else { f32::MAX };
        for (row, out) in rows.zip(out.chunks_exact_mut(format.row_bytes(cols))) {
            self.widen(row, &mut stored, &mut values);
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(format!("has {} in row {row}, column {at}", values[at]));
            }
            if let Some(value) = values.iter().find(|value| value.abs() > most) {
                return Err(format!("has {value} in row {row}, too large for {}", format.name()));
            }
            if self.is_copy(format) {
                out.copy_from_slice(self.bytes(row));
            } else {
                quantize::row(format, &values, out);
                dequant::row(format, out, &mut back);
                let left = values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2));
                squares[0] += left.sum::<f64>();
            }
            squares[1] += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        }
        Ok(squares)
    }
}

/// All rows of a piece in `format`. The error says what is wrong with the tensor.
pub(super) fn rows(
    piece: &Piece<'_>,
    format: Format,
    threads: usize,
    spread: &mut Spread,
) -> Result<Vec<u8>, String> {
    let (rows, row_bytes) = (piece.view.rows, format.row_bytes(piece.view.cols));
    let mut out = vec![0; rows * row_bytes];
    let each = rows.div_ceil(threads.max(1)).next_multiple_of(ROWS_AT_ONCE);
    let results: Vec<Result<[f64; 2], String>> = std::thread::scope(|scope| {
        let shares = out.chunks_mut((each * row_bytes).max(1)).enumerate();
        let threads: Vec<_> = shares
            .map(|(n, out)| {
                let rows = n * each..rows.min((n + 1) * each);
                scope.spawn(move || piece.encode(rows, format, out))
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("could not be encoded".to_owned())));
        joined.collect()
    });
    for squares in results {
        for (sum, square) in spread.squares.iter_mut().zip(squares?) {
            *sum += square;
        }
    }
    spread.elements += (rows * piece.view.cols) as u64;
    spread.bytes += out.len() as u64;
    Ok(out)
}
