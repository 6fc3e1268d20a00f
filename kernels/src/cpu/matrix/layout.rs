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
//!
//! ```text
//! scales  per group of 32 k (Q*_0, Q*_1):  f16 x 16 scales [, f16 x 16 minima]
//!         per 256 k (K formats):           f16 x 16 d [, f16 x 16 dmin], then bytes x 16:
//!                                          Q4K Q5K  8 scales, 8 minima
//!                                          Q2K      16 of scale | minimum << 4
//!                                          Q3K Q6K  16 signed scales
//! codes   per group of 32 k: bit planes, 64 bytes a bit. Vector j of a group is k 4j..4j+4.
//!         8 bits:       vectors 0..8
//!         4-bit plane:  4 x 64 bytes; vector j in the low half of j, or the high half of j - 4
//!         2-bit plane:  2 x 64 bytes; vector j in bits 2 (j % 4).. of j / 4
//!         1-bit plane:  64 bytes; vector j in bit j
//! ```
//! 5 bits are a 4-bit and a 1-bit plane, 6 a 4-bit and a 2-bit, 3 a 2-bit and a 1-bit. Sub-scales
//! stay bytes, so a packed matrix of whole 256s is at most 4 % larger than its file.

use crate::Format;

/// Rows of a panel of codes: the lanes of a 512-bit vector.
pub(crate) const PANEL: usize = 16;
/// Rows of a panel of plain numbers.
pub(crate) const PAIR: usize = 2 * PANEL;
/// Elements of k that share a scale at most; the step of all quantized kernels.
pub(crate) const GROUP: usize = 32;
/// Elements of k in a super-block.
pub(crate) const SUPER: usize = 256;
/// Groups of a super-block.
pub(crate) const GROUPS: usize = SUPER / GROUP;
/// Bytes of a vector.
pub(crate) const VECTOR: usize = 64;

/// Bits of a code; 0 for plain numbers.
pub(crate) const fn code_bits(format: Format) -> usize {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => 0,
        Format::Q2K => 2,
        Format::Q3K => 3,
        Format::Q4_0 | Format::Q4_1 | Format::Q4K => 4,
        Format::Q5_0 | Format::Q5_1 | Format::Q5K => 5,
        Format::Q6K => 6,
        Format::Q8_0 => 8,
    }
}

/// What a code of the signed formats is relative to.
pub(crate) const fn code_bias(format: Format) -> i32 {
    match format {
        Format::Q3K => 4,
        Format::Q4_0 => 8,
        Format::Q5_0 => 16,
        Format::Q6K => 32,
        Format::Q8_0 => 128,
        _ => 0,
    }
}

/// Bytes of the scales of one block of a format of codes, all 16 rows.
pub(crate) const fn scale_block_bytes(format: Format) -> usize {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => 0,
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => 2 * PANEL,
        Format::Q4_1 | Format::Q5_1 => 4 * PANEL,
        Format::Q2K | Format::Q4K | Format::Q5K => (4 + 16) * PANEL,
        Format::Q3K | Format::Q6K => (2 + 16) * PANEL,
    }
}

/// Bytes of the scales of [`SUPER`] elements of k, all 16 rows.
pub(crate) const fn scale_bytes(format: Format) -> usize {
    SUPER / format.block_len() * scale_block_bytes(format)
}

/// Bytes of [`SUPER`] elements of k of a panel: scales, then codes.
pub(crate) const fn super_bytes(format: Format) -> usize {
    scale_bytes(format) + GROUPS * code_bits(format) * VECTOR
}

/// Where in a panel the scales of group `group` begin.
pub(crate) const fn scales_at(format: Format, group: usize) -> usize {
    let block = group % GROUPS * GROUP / format.block_len();
    group / GROUPS * super_bytes(format) + block * scale_block_bytes(format)
}

/// Where in a panel the codes of group `group` begin.
pub(crate) const fn codes_at(format: Format, group: usize) -> usize {
    let scales = (group / GROUPS + 1) * scale_bytes(format);
    scales + group * code_bits(format) * VECTOR
}

/// Sizes of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What it holds.
    pub(crate) format: Format,
    /// Elements of k.
    pub(crate) cols: usize,
    /// Rows of a panel.
    pub(crate) rows: usize,
    /// Bytes of the panel, a multiple of 64.
    pub(crate) panel: usize,
}

impl Layout {
    /// Of rows of `cols` elements, a multiple of the format's block.
    pub(crate) fn new(format: Format, cols: usize) -> Self {
        let panel = match format {
            Format::F32 => cols * 4 * PAIR,
            Format::F16 => cols * 2 * PAIR,
            Format::Bf16 => cols.div_ceil(2) * 4 * PAIR,
            _ => {
                let codes = cols / GROUP * code_bits(format) * VECTOR;
                (cols.div_ceil(SUPER) * scale_bytes(format) + codes).next_multiple_of(VECTOR)
            }
        };
        let rows = if format.is_quantized() { PANEL } else { PAIR };
        Self { format, cols, rows, panel }
    }
}
