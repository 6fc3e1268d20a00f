//! Weights as plain numbers again: `ops/expand.cu`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use kernels::Error;

use super::{blocks, kernel};
use crate::gpu::{Address, Gpu, Kernel};
use crate::matrix::{Codes, Layout, Offset, Part};
use crate::record::Record;
use crate::tensor::Kind;

const FILE: &str = "expand.cu";
const THREADS: u32 = 256;
/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Tiles of a block: one a warp.
const TILES: usize = THREADS as usize / 32;

/// A part as kernels that read single rows take it: `struct Stored` of stored.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct StoredArg {
    data: Address,
    scales: Address,
    table: Address,
    order: Address,
    first: u32,
    rows: u32,
    cols: u32,
    layout: u32,
    group: u32,
    offset: u32,
    bias: f32,
    factor: f32,
}

impl StoredArg {
    pub(crate) fn new(part: &Part, cols: usize) -> Self {
        let plain = Self {
            data: part.data,
            scales: part.scales,
            table: part.table,
            order: part.order,
            first: part.first as u32,
            rows: part.rows as u32,
            cols: cols as u32,
            layout: 0,
            group: 1,
            offset: 0,
            bias: 0.0,
            factor: 1.0,
        };
        match part.layout {
            Layout::Plain(kind) => Self { layout: kind as u32, ..plain },
            Layout::F8 { block } => Self { layout: 3, group: block as u32, ..plain },
            Layout::Codes(Codes { bits, group, offset, bias, factor, .. }) => Self {
                layout: if bits == 4 { 4 } else { 5 },
                group: group as u32,
                offset: match offset {
                    Offset::None => 0,
                    Offset::Zero => 1,
                    Offset::Minimum => 2,
                },
                bias,
                factor,
                ..plain
            },
        }
    }
}

/// The kernels.
pub(crate) struct Expand {
    codes4: Kernel,
    codes8: Kernel,
    numbers: Kernel,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ExpandArgs {
    w: StoredArg,
    out: Address,
    kind: u32,
    first: u32,
    rows: u32,
    pad: u32,
}

impl Expand {
    pub(crate) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        let mut find = |name| kernel::<ExpandArgs, G>(gpu, FILE, name);
        let (codes4, codes8) = (find("expand_codes4")?, find("expand_codes8")?);
        Ok(Self { codes4, codes8, numbers: find("expand_numbers")? })
    }

    /// Rows `rows` of a part of a matrix of `cols` columns, to `out` `[rows.len(), cols]`, 16-byte
    /// aligned. Columns stay in stored order.
    pub(crate) fn rows(
        &self,
        record: &mut Record,
        part: &Part,
        cols: usize,
        rows: Range<usize>,
        out: Address,
        kind: Kind,
    ) {
        assert!(rows.end <= part.rows, "rows {rows:?} of {}", part.rows);
        if rows.is_empty() {
            return;
        }
        let args = ExpandArgs {
            w: StoredArg::new(part, cols),
            out,
            kind: kind as u32,
            first: rows.start as u32,
            rows: rows.len() as u32,
            pad: 0,
        };
        let (kernel, grid) = match part.layout {
            Layout::Codes(Codes { bits, .. }) => {
                let row_blocks = rows.end.div_ceil(TILE_ROWS) - rows.start / TILE_ROWS;
                let (kernel, tile_cols) =
                    if bits == 4 { (self.codes4, 64) } else { (self.codes8, 32) };
                (kernel, row_blocks * cols.div_ceil(tile_cols * TILES))
            }
            Layout::Plain(_) | Layout::F8 { .. } => {
                let of_row = if cols.is_multiple_of(8) { cols / 8 } else { cols };
                (self.numbers, (rows.len() * of_row).div_ceil(THREADS as usize))
            }
        };
        record.launch(kernel, blocks(grid, THREADS), &args);
    }
}
