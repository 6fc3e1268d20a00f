//! [`Matrix`]: a weight matrix as its container keeps it, and how rows of it become a
//! [`TensorView`].
//!
//! A container (see `containers`) checks a matrix's tensors once and then writes any run of rows
//! in one of the kernels' formats; which rows a role is, is decided here. That way fused tensors
//! work in every container.

use std::borrow::Cow;
use std::ops::Range;

use kernels::Format;

use super::{LoadError, Look, Pick, TensorView};

/// Rows that are written at once: where a container keeps output features side by side, a cache
/// line of it serves them all.
const ROWS_AT_ONCE: usize = 64;
/// Less than this is written by the calling thread: starting others takes longer.
const BYTES_PER_THREAD: usize = 1 << 20;

/// A matrix `[rows, cols]` whose tensors were found and have the right shapes.
pub(super) trait Matrix: Sync {
    /// The format that rows are written in.
    fn format(&self) -> Format;

    /// Bytes of the stored tensors that it is made of.
    fn bytes(&self) -> u64;

    /// Reads and checks what writing needs (scales, orders); `Some` is the order of columns, see
    /// [`TensorView::order`]. Called once before [`Matrix::write`].
    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        Ok(None)
    }

    /// Writes rows from `first` on into `out`, zeroed, which takes a whole number of them.
    fn write(&self, first: usize, out: &mut [u8]);
}

impl Pick {
    /// The picked rows of a tensor, in runs; `rows` is how many are wanted.
    ///
    /// # Errors
    /// The runs do not add up to `rows`, or do not lie in the tensor.
    #[allow(clippy::single_range_in_vec_init, reason = "most picks are one run")]
    pub(super) fn runs(self, rows: usize) -> Result<Vec<Range<usize>>, String> {
        match self {
            Self::All => Ok(vec![0..rows]),
            Self::Run { first, of } if first.checked_add(rows).is_some_and(|end| end <= of) => {
                Ok(vec![first..first + rows])
            }
            Self::Run { first, of } => {
                Err(format!("rows {first} to {} of {of} do not exist", first.saturating_add(rows)))
            }
            Self::OfEach { count, stride, first } => {
                let each = rows / count.max(1);
                if each * count != rows || first + each > stride {
                    let problem = format!("{rows} rows are not {count} runs within {stride}");
                    return Err(problem);
                }
                let run = |n: usize| n * stride + first..n * stride + first + each;
                Ok((0..count).map(run).collect())
            }
            Self::EveryOther { first } => {
                Ok((0..rows).map(|row| 2 * row + first..2 * row + first + 1).collect())
            }
        }
    }
}

/// Bytes that a row of `cols` elements takes; `None` if it is not made of whole blocks.
pub(super) fn row_bytes(format: Format, cols: usize) -> Option<usize> {
    let blocks = cols.is_multiple_of(format.block_len()).then(|| cols / format.block_len());
    blocks.and_then(|blocks| blocks.checked_mul(format.block_bytes()))
}

/// A matrix, and whether it has to be transcoded.
pub(super) enum Opened<'a> {
    /// It lies in the file as the kernels take it.
    Stored(Stored<'a>),
    /// Its container has to write it.
    Coded(Box<dyn Matrix + 'a>),
}

impl<'a> Opened<'a> {
    pub(super) fn matrix(&self) -> &(dyn Matrix + 'a) {
        match self {
            Self::Stored(stored) => stored,
            Self::Coded(coded) => coded.as_ref(),
        }
    }

    /// What the rows of `runs` are without their data. `rows` is how many the matrix has.
    pub(super) fn look(&self, picked: usize, rows: usize) -> Look {
        let matrix = self.matrix();
        let share = u128::from(matrix.bytes()) * picked as u128 / rows.max(1) as u128;
        Look { format: matrix.format(), bytes: share as u64 }
    }

    /// The rows of `runs`, each of `cols` elements.
    pub(super) fn view(
        mut self,
        runs: &[Range<usize>],
        cols: usize,
    ) -> Result<TensorView<'a>, LoadError> {
        let order = match &mut self {
            Self::Stored(_) => None,
            Self::Coded(coded) => coded.prepare()?,
        };
        let rows = runs.iter().map(ExactSizeIterator::len).sum();
        let format = self.matrix().format();
        let bytes = match &self {
            Self::Stored(stored) => stored.run(runs),
            Self::Coded(_) => None,
        };
        let bytes = bytes.map_or_else(
            || Cow::Owned(written(self.matrix(), runs, format.row_bytes(cols))),
            Cow::Borrowed,
        );
        Ok(TensorView { format, rows, cols, bytes, order })
    }
}

/// The rows of `runs`, which take `row_bytes` bytes each.
fn written(matrix: &dyn Matrix, runs: &[Range<usize>], row_bytes: usize) -> Vec<u8> {
    let rows: usize = runs.iter().map(ExactSizeIterator::len).sum();
    let mut out = vec![0; rows * row_bytes];
    // Tasks: a first row, and where its run of rows goes.
    let mut tasks = Vec::new();
    let mut rest = out.as_mut_slice();
    for run in runs {
        for first in run.clone().step_by(ROWS_AT_ONCE) {
            let count = ROWS_AT_ONCE.min(run.end - first);
            let (here, behind) = rest.split_at_mut(count * row_bytes);
            tasks.push((first, here));
            rest = behind;
        }
    }
    let wanted = (rows * row_bytes / BYTES_PER_THREAD).max(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted);
    let each = tasks.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut shares = tasks.chunks_mut(each);
        let own = shares.next();
        for share in shares {
            scope.spawn(move || share.iter_mut().for_each(|(row, out)| matrix.write(*row, out)));
        }
        own.into_iter().flatten().for_each(|(row, out)| matrix.write(*row, out));
    });
    out
}

/// A matrix in one of the kernels' formats already.
pub(super) struct Stored<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Stored `[cols, rows]`; plain formats only.
    pub(super) transposed: bool,
}

impl<'a> Stored<'a> {
    /// Its bytes without a copy, where `runs` is one run.
    fn run(&self, runs: &[Range<usize>]) -> Option<&'a [u8]> {
        let row_bytes = row_bytes(self.format, self.cols)?;
        match runs {
            [run] if !self.transposed => {
                Some(&self.bytes[run.start * row_bytes..run.end * row_bytes])
            }
            _ => None,
        }
    }
}

impl Matrix for Stored<'_> {
    fn format(&self) -> Format {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        if !self.transposed {
            let start = self.bytes.len() / self.rows.max(1) * first;
            out.copy_from_slice(&self.bytes[start..start + out.len()]);
            return;
        }
        let size = self.format.block_bytes();
        let row_bytes = self.cols * size;
        for col in 0..self.cols {
            let stored = &self.bytes[(col * self.rows + first) * size..];
            for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                out[col * size..][..size].copy_from_slice(&stored[row * size..][..size]);
            }
        }
    }
}
