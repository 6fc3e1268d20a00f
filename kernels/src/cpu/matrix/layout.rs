//! Where a weight lies in a packed panel.
//!
//! A panel is some output rows interleaved, so that one 64-byte vector holds 4 bytes of k of 16 of
//! them: one f32, two bf16 or four 8-bit codes a lane, which is what the dot product instructions
//! (and AMX tiles) take. f16 is packed as 16 halves per k.
//!
//! A panel is read from its first byte to its last: one stream comes from memory half as fast
//! again as two. So a panel of plain numbers has 32 rows, two vectors a step, because a kernel
//! needs two sums at least to be busy. A panel of codes has 16 rows and is, for each 256 k, the
//! scales and then the codes. The last 256 may have fewer codes; their scales keep their room.
//! How codes and scales lie is said in [`super::coding`].
//!
//! Small floats (`F8E4M3`, `Nf4`, `Fp4`) are widened, not summed as integers, and a step of theirs
//! is few bytes: their panels have 64 rows, four sums in flight, and are for each of the format's
//! blocks 64 f32 scales and then
//! ```text
//! 8 bits  64 bytes a step of k, one of each row
//! 4 bits  4 vectors for 8 k: a word of each row, k in order from the lowest bits
//! ```
//! A block of `F8E4M3` with a NaN among its codes gets a NaN as scale, which no product can tell
//! from the code and no kernel must look for.

use super::coding::Codes;
use crate::Format;

/// Rows of a panel of codes: the lanes of a 512-bit vector.
pub(crate) const PANEL: usize = 16;
/// Rows of a panel of plain numbers.
pub(crate) const PAIR: usize = 2 * PANEL;
/// Rows of a panel of small floats.
pub(crate) const QUAD: usize = 4 * PANEL;
/// Elements of k that share a scale at most; the step of all quantized kernels.
pub(crate) use crate::codes::GROUP;
/// Elements of k in a super-block.
pub(crate) const SUPER: usize = 256;
/// Groups of a super-block.
pub(crate) const GROUPS: usize = SUPER / GROUP;
/// Bytes of a vector.
pub(crate) const VECTOR: usize = 64;

/// What a panel's bytes are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Packing {
    /// Plain numbers.
    Plain,
    /// Integer codes with scales.
    Codes(Codes),
    /// Floats of 8 or 4 bits with scales.
    Floats(Floats),
}

/// Small floats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Floats {
    /// Elements of k that share a scale.
    pub(crate) block: usize,
    /// What the codes stand for; `None` for e4m3, which is computed.
    pub(crate) table: Option<&'static [f32; 16]>,
}

impl Floats {
    /// Bytes of the scales of a block.
    pub(crate) const SCALES: usize = 4 * QUAD;

    /// Bytes of `steps` elements of k, a multiple of 8.
    pub(crate) const fn codes(self, steps: usize) -> usize {
        if self.table.is_some() { steps * QUAD / 2 } else { steps * QUAD }
    }

    /// Bytes of a block.
    pub(crate) const fn bytes(self) -> usize {
        Self::SCALES + self.codes(self.block)
    }
}

/// Sizes of a panel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Layout {
    /// What it holds.
    pub(crate) format: Format,
    /// How it is packed.
    pub(crate) packing: Packing,
    /// Elements of k.
    pub(crate) cols: usize,
    /// Rows of a panel.
    pub(crate) rows: usize,
    /// Bytes of the panel, a multiple of 64.
    pub(crate) panel: usize,
}

impl Layout {
    /// Of rows of `cols` elements, a multiple of the format's block. A panel too large to count
    /// is `usize::MAX` bytes.
    pub(crate) fn new(format: Format, cols: usize) -> Self {
        use crate::format::grids::{FP4, NF4};
        let block = format.block_len();
        let floats = |table| Packing::Floats(Floats { block, table });
        let packing = match format {
            Format::F32 | Format::F16 | Format::Bf16 => Packing::Plain,
            Format::F8E4M3(_) => floats(None),
            Format::Nf4 => floats(Some(&NF4)),
            Format::Fp4 => floats(Some(&FP4)),
            _ => Packing::Codes(Codes::of(format)),
        };
        let (rows, panel) = match packing {
            Packing::Plain if format == Format::F32 => (PAIR, cols.checked_mul(4 * PAIR)),
            Packing::Plain => (PAIR, cols.next_multiple_of(2).checked_mul(2 * PAIR)),
            Packing::Floats(floats) => (QUAD, (cols / block).checked_mul(floats.bytes())),
            Packing::Codes(codes) => {
                let scales = cols.div_ceil(SUPER).checked_mul(codes.scale_bytes);
                let codes = (cols / GROUP).checked_mul(codes.group_bytes);
                let both = scales.zip(codes).and_then(|(scales, codes)| scales.checked_add(codes));
                (PANEL, both.and_then(|bytes| bytes.checked_next_multiple_of(VECTOR)))
            }
        };
        Self { format, packing, cols, rows, panel: panel.unwrap_or(usize::MAX) }
    }

    /// Bytes of a matrix of so many rows.
    pub(crate) fn bytes(&self, rows: usize) -> usize {
        rows.div_ceil(self.rows).saturating_mul(self.panel)
    }
}
