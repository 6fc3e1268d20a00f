//! The layout that a format gets, and what it takes of device memory: known from formats and
//! shapes alone, so that a plan made before anything is read can be kept.
//!
//! Loading may find a layout that reads less (one scale a row, one zero point for all); the room
//! claimed stays the one said here.

use kernels::{Format, Precision, codes};

use super::{Codes, Layout, Offset};
use crate::tensor::Kind;

/// Where each array of a matrix begins: what `claim` gives for the whole.
pub(super) const ALIGN: usize = 256;
/// Rows of a row block of codes.
pub(super) const BLOCK: usize = 16;
/// Bytes of a tile of codes.
pub(super) const TILE: usize = 512;
/// The longest group that kernels know; longer ones repeat their scale.
const GROUP_MAX: usize = 128;

/// The layout of a format, its factor 1.
///
/// Plain numbers become what x is rounded to in `precision`, so that both operands of a product
/// are of one type, but for f32: what a file keeps in f32 (routers, some heads) is worth it. f16
/// read as bf16 loses its last three bits: only who asks for that arithmetic gets it.
pub(super) fn layout(format: Format, precision: Precision) -> Layout {
    let Some(coding) = codes::coding(format) else {
        return match (format, precision) {
            (Format::F8E4M3(group), _) => Layout::F8 { block: group.len() },
            (Format::F16, Precision::Float32 | Precision::Float16)
            | (Format::Bf16, Precision::Float16) => Layout::Plain(Kind::F16),
            (Format::F16 | Format::Bf16, _) => Layout::Plain(Kind::Bf16),
            _ => Layout::Plain(Kind::F32),
        };
    };
    Layout::Codes(Codes {
        bits: if coding.bits <= 4 { 4 } else { 8 },
        group: coding.group.min(GROUP_MAX),
        offset: match coding.offset {
            codes::Offset::None => Offset::None,
            codes::Offset::Zero => Offset::Zero,
            codes::Offset::Minimum => Offset::Minimum,
        },
        bias: coding.bias,
        table: coding.table,
        factor: 1.0,
    })
}

/// Columns of a tile.
pub(super) const fn tile_cols(codes: &Codes) -> usize {
    TILE * 8 / codes.bits / BLOCK
}

/// Entries of a scale pair: two rows' scales, and their offsets.
pub(super) fn entries(codes: &Codes) -> usize {
    if codes.offset == Offset::None { 2 } else { 4 }
}

/// Tiles and groups of a row.
pub(super) fn of_row(codes: &Codes, cols: usize) -> (usize, usize) {
    let tiles = cols.div_ceil(tile_cols(codes));
    (tiles, tiles * tile_cols(codes) / codes.group)
}

/// Bytes of the arrays of a part, each a multiple of [`ALIGN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) data: usize,
    pub(super) scales: usize,
    pub(super) table: usize,
}

impl Sizes {
    /// `None` where they cannot be counted.
    pub(super) fn of(layout: &Layout, rows: usize, cols: usize) -> Option<Self> {
        let count = |factors: &[usize]| {
            let all = factors.iter().try_fold(1_usize, |all, &factor| all.checked_mul(factor));
            all?.checked_next_multiple_of(ALIGN)
        };
        match layout {
            Layout::Plain(kind) => {
                Some(Self { data: count(&[rows, cols, kind.bytes()])?, scales: 0, table: 0 })
            }
            Layout::F8 { block } => {
                let scales = count(&[rows, cols.div_ceil(*block), 4])?;
                Some(Self { data: count(&[rows, cols])?, scales, table: 0 })
            }
            Layout::Codes(codes) => {
                let blocks = rows.div_ceil(BLOCK);
                cols.checked_next_multiple_of(tile_cols(codes))?;
                let (tiles, groups) = of_row(codes, cols);
                Some(Self {
                    data: count(&[blocks, tiles, TILE])?,
                    scales: count(&[blocks, groups, BLOCK / 2 * entries(codes), 2])?,
                    table: if codes.table.is_some() { ALIGN } else { 0 },
                })
            }
        }
    }

    pub(super) fn total(&self) -> Option<usize> {
        self.data.checked_add(self.scales)?.checked_add(self.table)
    }
}

/// Device memory that a matrix of one part takes, orders of columns aside, in bytes; `usize::MAX`
/// where that cannot be counted. `cols` is a multiple of the format's block.
#[must_use]
pub fn matrix_bytes(format: Format, rows: usize, cols: usize, precision: Precision) -> usize {
    parts_bytes(&[(format, rows)], cols, precision)
}

/// As [`matrix_bytes`], of parts one below the other. Neighbours that lie alike share the padding
/// at their end. An order of columns adds its own 4 bytes a column, and ends such a run; bf16 that
/// f16 cannot hold takes twice what is said here under [`Precision::Float16`].
#[must_use]
pub fn parts_bytes(parts: &[(Format, usize)], cols: usize, precision: Precision) -> usize {
    let mut bytes = Some(0_usize);
    let mut at = 0;
    while at < parts.len() {
        let alike = layout(parts[at].0, precision);
        let (mut rows, first) = (Some(0_usize), at);
        while at < parts.len() && (at == first || layout(parts[at].0, precision) == alike) {
            rows = rows.and_then(|rows| rows.checked_add(parts[at].1));
            at += 1;
        }
        let run = rows.and_then(|rows| Sizes::of(&alike, rows, cols)?.total());
        bytes = bytes.zip(run).and_then(|(bytes, run)| bytes.checked_add(run));
    }
    bytes.unwrap_or(usize::MAX)
}
