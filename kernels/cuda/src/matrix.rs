//! Weight matrices on the device. Quantized weights stay quantized, in few layouts that tensor
//! cores can be fed from: every storage format is brought to one of them when it is loaded.
//!
//! ```text
//! Plain  row-major [rows, cols] of f32 as in the file, or of the 16-bit type that x is rounded to
//!        (see [`size`]); with f32 x of either.
//! F8     row-major [rows, cols] bytes e4m3fn; then f32 scales [cols / block][rows].
//!        block is 32, 64, 128, or cols (one scale a row).
//! Codes  of 4 or 8 bits, in tiles of 16 rows that lie in the order in which the lanes of a warp
//!        need them for mma.m16n8k16, so that a lane's 16 bytes are read at once and no byte is
//!        moved through shared memory. Lane l = 4 g + t (g 0..8, t 0..4).
//!          4 bits: a tile is 16 rows x 64 k = 512 bytes; lane l owns bytes 16 l..16 l + 16:
//!                  word s (s 0..4) is for k 16 s..16 s + 16
//!          8 bits: a tile is 16 rows x 32 k = 512 bytes; lane l owns bytes 16 l..: words 2 s and
//!                  2 s + 1 (s 0..2) are for k 16 s..16 s + 16
//!        A step s of a lane is eight codes, two of each operand register of the mma:
//!          a0 = (row g,     k 16 s + 4 t, + 1)    a2 = (row g,     k 16 s + 4 t + 2, + 3)
//!          a1 = (row g + 8, k 16 s + 4 t, + 1)    a3 = (row g + 8, k 16 s + 4 t + 2, + 3)
//!        so the register pairs of x are b0 = x[16 s + 4 t, + 1], b1 = x[16 s + 4 t + 2, + 3]:
//!        one read of 8 bytes (the mma's own order of k does not matter to a sum).
//!          4 bits: register j's two codes are nibbles j and j + 4 of the word (word & 0x000f000f
//!                  is a0, >> 4 is a1, >> 8 is a2, >> 12 is a3)
//!          8 bits: word 2 s is a0 (bytes 0, 1) and a1 (bytes 2, 3), word 2 s + 1 is a2 and a3
//!        Tiles of a row block lie one after the other along k (cols padded to a whole tile), row
//!        blocks one after the other (rows padded to 16). Padding has scale 0.
//!        Scales, behind the codes, 256-byte aligned: [row block][group][g 0..8] pairs of entries
//!        for rows g and g + 8. An entry is an f16 scale; where the offset is Zero or Minimum a
//!        pair is f16 scale(g), scale(g + 8), offset(g), offset(g + 8). Groups are 16, 32, 64 or
//!        128 elements of k. Scales are multiplied by 1 / factor so that they fit f16; `factor`
//!        is a power of two for the whole part. Padding of a row block is all 0.
//!        w = factor * scale * (value - bias)            offset None
//!        w = factor * scale * (value - offset)          offset Zero: a whole number up to 256
//!        w = factor * (scale * (value - bias) - offset) offset Minimum
//!        value is the code, or table[code] of 16 whole numbers (exact in bf16) or, for Nf4 and
//!        Fp4, of real ones.
//! ```
//! It must not know what a matrix is for.

mod check;
mod floats;
mod known;
mod plain;
mod rows;
mod scales;
mod send;
mod size;
#[cfg(test)]
mod tests;
mod threads;
mod tiles;

use kernels::{Error, MatrixPart, Precision};
use rows::Rows;
use size::Sizes;
pub use size::{matrix_bytes, parts_bytes};

use crate::gpu::{Address, Gpu};
use crate::tensor::Kind;
use crate::upload::Upload;

/// How a part lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Layout {
    /// Plain numbers.
    Plain(Kind),
    /// 8-bit floats with a scale for so many columns.
    F8 {
        /// Columns that share a scale.
        block: usize,
    },
    /// Integer codes.
    Codes(Codes),
}

/// Integer codes with scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Codes {
    /// 4 or 8.
    pub(crate) bits: usize,
    /// Elements of k that share a scale.
    pub(crate) group: usize,
    /// What is taken off.
    pub(crate) offset: Offset,
    /// Taken off every value.
    pub(crate) bias: f32,
    /// What codes stand for; `None`: themselves.
    pub(crate) table: Option<[f32; 16]>,
    /// Multiplies everything: a power of two.
    pub(crate) factor: f32,
}

/// What the second entry of a scale pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offset {
    /// There is none.
    None,
    /// A whole number, taken off the value before it is scaled.
    Zero,
    /// A real number, taken off the scaled value.
    Minimum,
}

/// Rows of one layout. Neighbouring parts of a matrix that lie alike are one.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Row of the matrix that is this part's first.
    pub(crate) first: usize,
    /// Rows, padding aside.
    pub(crate) rows: usize,
    /// How it lies.
    pub(crate) layout: Layout,
    /// Numbers or codes.
    pub(crate) data: Address,
    /// Scales; 0 for plain numbers.
    pub(crate) scales: Address,
    /// f32 `[16]`; 0 without a table.
    pub(crate) table: Address,
    /// u32 `[cols]`: stored column j multiplies input element `order[j]`; 0: as they come.
    pub(crate) order: Address,
}

/// A weight matrix `[rows, cols]`.
#[derive(Debug)]
pub struct Matrix {
    pub(crate) parts: Vec<Part>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    bytes: usize,
}

impl Matrix {
    /// Brings the parts to the device's layouts and sends them up.
    ///
    /// # Errors
    /// Bytes that do not fit the shape, numbers that the layouts cannot hold, or no memory.
    pub(crate) fn load<G: Gpu>(
        gpu: &mut G,
        upload: &mut Upload,
        parts: &[MatrixPart<'_>],
        precision: Precision,
    ) -> Result<Self, Error> {
        let runs = runs(parts, precision)?;
        let rows = parts.iter().map(|part| part.rows).sum();
        let cols = parts.first().map_or(0, |part| part.cols);
        let orders = orders(&runs);
        let room_of_order = (4 * cols).next_multiple_of(size::ALIGN);
        let bytes = runs
            .iter()
            .try_fold(orders.len() * room_of_order, |bytes, run| bytes.checked_add(run.room()?));
        let bytes = bytes.unwrap_or(usize::MAX);
        let start = gpu.claim("a weight matrix", bytes)?;
        let sent = send::all(gpu, upload, (&runs, &orders), cols, start);
        match sent {
            Ok(parts) => Ok(Self { parts, rows, cols, bytes }),
            Err(error) => {
                gpu.release(start);
                Err(error)
            }
        }
    }

    /// Output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Device memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Neighbouring parts that lie alike.
struct Run<'a> {
    rows: Rows<'a>,
    order: Option<&'a [u32]>,
    /// As the formats alone say: memory is claimed for this.
    planned: Layout,
    /// As the numbers allow.
    layout: Layout,
    /// 8-bit floats: there are codes that are no number.
    nan: bool,
}

impl<'a> Run<'a> {
    fn new(planned: Layout, order: Option<&'a [u32]>, cols: usize) -> Self {
        Self { rows: Rows::new(cols), order, planned, layout: planned, nan: false }
    }

    /// Looks at the numbers.
    fn refine(&mut self) -> Result<(), Error> {
        match self.planned {
            Layout::Plain(Kind::F16) if plain::beyond_f16(&self.rows) => {
                self.layout = Layout::Plain(Kind::F32);
            }
            Layout::Plain(_) => {}
            Layout::F8 { .. } => {
                let found = floats::look(&self.rows)?;
                self.nan = found.nan;
                if found.of_rows && !found.nan {
                    self.layout = Layout::F8 { block: self.rows.cols };
                }
            }
            Layout::Codes(codes) => {
                self.layout = Layout::Codes(scales::refine(&self.rows, codes)?);
            }
        }
        Ok(())
    }

    /// Bytes claimed for it.
    fn room(&self) -> Option<usize> {
        let of = |layout| Sizes::of(layout, self.rows.len, self.rows.cols)?.total();
        Some(of(&self.planned)?.max(of(&self.layout)?))
    }
}

/// Checks the parts and joins neighbours.
fn runs<'a>(parts: &[MatrixPart<'a>], precision: Precision) -> Result<Vec<Run<'a>>, Error> {
    let Some(first) = parts.first() else {
        return Err(Error::Unsupported("a matrix of no parts".to_owned()));
    };
    let (cols, mut runs) = (first.cols, Vec::<Run<'a>>::new());
    for part in parts {
        check::part(part, cols)?;
        let (layout, order) = (size::layout(part.format, precision), part.order);
        let joins = runs.last().is_some_and(|run| run.planned == layout && run.order == order);
        if !joins {
            runs.push(Run::new(layout, order, cols));
        }
        runs.last_mut().expect("one was pushed").rows.push(*part);
    }
    runs.iter_mut().try_for_each(Run::refine)?;
    Ok(runs)
}

/// The different orders of columns.
fn orders<'a>(runs: &[Run<'a>]) -> Vec<&'a [u32]> {
    let mut orders = Vec::new();
    for order in runs.iter().filter_map(|run| run.order) {
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}
