//! Weight matrices in the CPU's own layout: panels of rows (see [`layout`]), packed once.
//!
//! Quantized weights stay quantized. The kernels in `matmul` stream panels; [`Matrix::row`]
//! gathers one row for embeddings. It must not know what the matrix is for.

mod blocks;
mod decode;
mod encode;
pub(crate) mod layout;
mod memory;

use crate::compute::{Error, MatrixPart, Precision};
use crate::{Format, cpu::isa::Isa, cpu::pool::Pool};

use layout::{GROUP, Layout};
pub(crate) use memory::Memory;

/// How products with a part are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Arithmetic {
    /// Weights widened to f32, activations f32, or rounded to bf16 and widened.
    Float {
        /// Round activations to bf16: the same numbers as `Bf16Pairs` on another processor.
        round: bool,
    },
    /// Pairs of bf16 by bf16 into f32.
    Bf16Pairs,
    /// Unsigned codes by 8-bit activations into exact integers per group of 32.
    Bytes,
}

impl Arithmetic {
    fn of(format: Format, precision: Precision, isa: Isa) -> Self {
        match (format, precision) {
            (f, Precision::Bfloat16 | Precision::Float16) if f.is_quantized() => Self::Bytes,
            (Format::Bf16, Precision::Bfloat16) if isa.has_bf16() => Self::Bf16Pairs,
            (Format::Bf16, Precision::Bfloat16) => Self::Float { round: true },
            _ => Self::Float { round: false },
        }
    }
}

/// Rows of one format.
pub(crate) struct Part {
    pub(crate) layout: Layout,
    pub(crate) arithmetic: Arithmetic,
    /// Rows, without the padding of the last panel.
    pub(crate) rows: usize,
    /// Row of the matrix that is this part's first.
    pub(crate) first: usize,
    pub(crate) data: Memory,
}

impl Part {
    /// Panels, the last one perhaps padded.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(self.layout.rows)
    }

    fn pack(
        part: &MatrixPart<'_>,
        first: usize,
        arithmetic: Arithmetic,
        pool: &Pool,
    ) -> Result<Self, Error> {
        let layout = Layout::new(part.format, part.cols);
        let panels = part.rows.div_ceil(layout.rows);
        let bytes = panels.saturating_mul(layout.panel);
        let mut data = Memory::zeroed(bytes, "a weight matrix")?;
        let start = Start(data.as_mut_ptr());
        pool.run(panels, &|panel, _| {
            // SAFETY: each task writes its own panel of the allocation, which outlives the run.
            let out = unsafe {
                std::slice::from_raw_parts_mut(start.get().add(panel * layout.panel), layout.panel)
            };
            encode::panel(part, panel * layout.rows, out);
        });
        Ok(Self { layout, arithmetic, rows: part.rows, first, data })
    }
}

/// Where a buffer begins, for tasks that write disjoint parts of it.
struct Start(*mut u8);

// SAFETY: only an address; who writes through it says why that is sound.
unsafe impl Sync for Start {}

impl Start {
    fn get(&self) -> *mut u8 {
        self.0
    }
}

/// A packed weight matrix `[rows, cols]`.
pub struct Matrix {
    parts: Vec<Part>,
    rows: usize,
    cols: usize,
    isa: Isa,
}

impl Matrix {
    /// Packs the rows of `parts`, one part after the other, for products in `precision` on `isa`.
    ///
    /// # Errors
    /// Bytes that do not fit the shape, shapes that do not fit each other or their format, or no
    /// memory.
    pub fn pack(
        parts: &[MatrixPart<'_>],
        precision: Precision,
        isa: Isa,
        pool: &Pool,
    ) -> Result<Self, Error> {
        let cols = parts.first().map_or(0, |p| p.cols);
        let mut packed = Vec::with_capacity(parts.len());
        let mut rows = 0_usize;
        for part in parts {
            check(part, cols)?;
            let arithmetic = Arithmetic::of(part.format, precision, isa);
            packed.push(Part::pack(part, rows, arithmetic, pool)?);
            rows += part.rows;
        }
        Ok(Self { parts: packed, rows, cols, isa })
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

    /// Memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.data.len()).sum()
    }

    /// Row `row`, dequantized, into `out` `[cols]`.
    ///
    /// # Panics
    /// No such row, or `out` of another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let part = self.parts.iter().rfind(|p| p.first <= row).expect("the first starts at 0");
        let (row, layout) = (row - part.first, &part.layout);
        let bytes = &part.data.bytes()[row / layout.rows * layout.panel..][..layout.panel];
        decode::row(layout, bytes, row % layout.rows, out);
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.parts.iter().map(|p| (p.layout.format, p.rows)).collect();
        f.debug_struct("Matrix").field("parts", &parts).field("cols", &self.cols).finish()
    }
}

/// Sizes come from files: they are checked, not trusted.
fn check(part: &MatrixPart<'_>, cols: usize) -> Result<(), Error> {
    let block = part.format.block_len();
    if part.cols != cols || part.cols == 0 || part.rows == 0 || !part.cols.is_multiple_of(block) {
        return Err(Error::Unsupported(format!(
            "a matrix part of {} x {} in {:?} (blocks of {block}) beside {cols} columns",
            part.rows, part.cols, part.format
        )));
    }
    debug_assert!(block == 1 || block.is_multiple_of(GROUP), "all blocks are whole groups");
    let row = (part.cols / block).checked_mul(part.format.block_bytes());
    let wanted = row.and_then(|row| row.checked_mul(part.rows)).unwrap_or(usize::MAX);
    if part.bytes.len() != wanted {
        return Err(Error::MatrixBytes { wanted, found: part.bytes.len() });
    }
    Ok(())
}
