//! Weight matrices in the CPU's own layout: panels of rows (see [`layout`]), packed once.
//!
//! Quantized weights stay quantized. The kernels in `matmul` stream panels; [`Matrix::row`]
//! gathers one row for embeddings. It must not know what the matrix is for.

pub(crate) mod coding;
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
            // Their values have no exact 8-bit table.
            (Format::F8E4M3(_) | Format::Nf4 | Format::Fp4, _) => Self::Float { round: false },
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
    /// Which of the matrix's orders its columns are in.
    pub(crate) order: Option<usize>,
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
        order: Option<usize>,
        (isa, arithmetic): (Isa, Arithmetic),
        pool: &Pool,
    ) -> Result<Self, Error> {
        let layout = Layout::new(part.format, part.cols);
        let panels = part.rows.div_ceil(layout.rows);
        let mut data = Memory::zeroed(layout.bytes(part.rows), "a weight matrix")?;
        let start = Start(data.as_mut_ptr());
        pool.run(panels, &|panel, _| {
            // SAFETY: each task writes its own panel of the allocation, which outlives the run.
            let out = unsafe {
                std::slice::from_raw_parts_mut(start.get().add(panel * layout.panel), layout.panel)
            };
            encode::panel(isa, part, &layout, panel * layout.rows, out);
        });
        Ok(Self { layout, arithmetic, rows: part.rows, first, order, data })
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

/// Memory that a matrix of one part takes once packed, orders of columns aside, in bytes;
/// `usize::MAX` where that cannot be counted. `cols` is a multiple of the format's block.
#[must_use]
pub fn packed_bytes(format: Format, rows: usize, cols: usize) -> usize {
    Memory::size_of(Layout::new(format, cols).bytes(rows))
}

/// A packed weight matrix `[rows, cols]`.
pub struct Matrix {
    parts: Vec<Part>,
    /// Different orders of columns: stored column j multiplies input element `order[j]`.
    orders: Vec<Vec<u32>>,
    rows: usize,
    cols: usize,
    isa: Isa,
}

impl Matrix {
    /// Packs the rows of `parts`, one part after the other, for products in `precision` on `isa`.
    ///
    /// # Errors
    /// Bytes that do not fit the shape, shapes that do not fit each other or their format, an
    /// order of columns that is no permutation, scales beyond what is computed with, or no memory.
    pub fn pack(
        parts: &[MatrixPart<'_>],
        precision: Precision,
        isa: Isa,
        pool: &Pool,
    ) -> Result<Self, Error> {
        let cols = parts.first().map_or(0, |p| p.cols);
        let mut packed = Vec::with_capacity(parts.len());
        let mut orders: Vec<Vec<u32>> = Vec::new();
        let mut rows = 0_usize;
        for part in parts {
            check(part, cols)?;
            let order = part.order.map(|order| {
                orders.iter().position(|known| known == order).unwrap_or_else(|| {
                    orders.push(order.to_vec());
                    orders.len() - 1
                })
            });
            let arithmetic = Arithmetic::of(part.format, precision, isa);
            packed.push(Part::pack(part, rows, order, (isa, arithmetic), pool)?);
            rows += part.rows;
        }
        Ok(Self { parts: packed, orders, rows, cols, isa })
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
        let orders = self.orders.len() * self.cols * size_of::<u32>();
        orders + self.parts.iter().map(|p| p.data.len()).sum::<usize>()
    }

    /// Row `row`, dequantized, its columns in the order of the input, into `out` `[cols]`.
    ///
    /// # Panics
    /// No such row, or `out` of another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let part = self.parts.iter().rfind(|p| p.first <= row).expect("the first starts at 0");
        let (row, layout) = (row - part.first, &part.layout);
        let bytes = &part.data.bytes()[row / layout.rows * layout.panel..][..layout.panel];
        match part.order.map(|order| &self.orders[order]) {
            None => decode::row(layout, bytes, row % layout.rows, |k, w| out[k] = w),
            Some(order) => {
                decode::row(layout, bytes, row % layout.rows, |k, w| out[order[k] as usize] = w);
            }
        }
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Orders of columns that parts are in.
    pub(crate) fn orders(&self) -> &[Vec<u32>] {
        &self.orders
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
            "a matrix part of {} x {} in {} (blocks of {block}) beside {cols} columns",
            part.rows,
            part.cols,
            part.format.name()
        )));
    }
    debug_assert!(block == 1 || block.is_multiple_of(GROUP), "all blocks are whole groups");
    let row = (part.cols / block).checked_mul(part.format.block_bytes());
    let wanted = row.and_then(|row| row.checked_mul(part.rows)).unwrap_or(usize::MAX);
    if part.bytes.len() != wanted {
        return Err(Error::MatrixBytes { wanted, found: part.bytes.len() });
    }
    if let Some(order) = part.order {
        check_order(order, cols)?;
    }
    if matches!(part.format, Format::F8E4M3(_)) {
        check_f8_scales(part)?;
    }
    Ok(())
}

fn check_order(order: &[u32], cols: usize) -> Result<(), Error> {
    let mut seen = vec![false; cols];
    let new = |&column: &u32| {
        seen.get_mut(column as usize).is_some_and(|seen| !std::mem::replace(seen, true))
    };
    if order.len() != cols || !order.iter().all(new) {
        let what = format!("an order of {} columns that is no permutation of {cols}", order.len());
        return Err(Error::Unsupported(what));
    }
    Ok(())
}

/// Kernels read e4m3 as f16, 2^8 too small, and make up for it in the scale.
fn check_f8_scales(part: &MatrixPart<'_>) -> Result<(), Error> {
    let limit = 2_f32.powi(119);
    for block in part.bytes.chunks_exact(part.format.block_bytes()) {
        let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        if scale.is_finite() && scale.abs() >= limit {
            return Err(Error::Unsupported(format!("a scale of {scale} for 8-bit floats")));
        }
    }
    Ok(())
}
