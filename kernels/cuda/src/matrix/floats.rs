//! 8-bit floats: blocks of a scale and codes apart into rows of codes and columns of scales.

use kernels::Error;

use super::rows::{Row, Rows};
use super::{check, threads};

/// Bytes of a block's scale.
const SCALE: usize = 4;

/// What is known of all scales of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Each row has one scale.
    pub(super) of_rows: bool,
    /// There are codes that are no number.
    pub(super) nan: bool,
}

fn scale(block: &[u8]) -> [u8; SCALE] {
    *block.first_chunk().expect("a whole block")
}

fn has_nan(block: &[u8]) -> bool {
    // Counted and not searched: that is a vector instruction.
    block[SCALE..].iter().map(|code| u8::from(code & 0x7f == 0x7f)).fold(0, |a, b| a | b) == 1
}

fn of_row(row: Row<'_>) -> Result<Found, Error> {
    let first = scale(row.bytes);
    let mut found = Found { of_rows: true, nan: false };
    for block in row.blocks() {
        check::f8_scale(f32::from_le_bytes(scale(block)))?;
        found.of_rows &= scale(block) == first;
        found.nan |= has_nan(block);
    }
    Ok(found)
}

/// Looks at all scales.
///
/// # Errors
/// One is too large to be computed with.
pub(super) fn look(rows: &Rows<'_>) -> Result<Found, Error> {
    let all = |all: Found, found: Found| Found {
        of_rows: all.of_rows && found.of_rows,
        nan: all.nan || found.nan,
    };
    let none = Found { of_rows: true, nan: false };
    let shares = threads::fold(rows.len, rows.bytes(), |range| {
        range.filter_map(|row| rows.get(row)).try_fold(none, |a, row| Ok(all(a, of_row(row)?)))
    });
    shares.into_iter().try_fold(none, |a, found| Ok(all(a, found?)))
}

/// Writes the codes of whole rows from `first` on.
pub(super) fn codes(rows: &Rows<'_>, first: usize, out: &mut [u8]) {
    threads::fill(out, rows.cols, |share, out| {
        for (i, out) in out.chunks_exact_mut(rows.cols).enumerate() {
            let Some(row) = rows.get(first + share + i) else { continue };
            let block = row.format.block_len();
            for (block, out) in row.blocks().zip(out.chunks_exact_mut(block)) {
                out.copy_from_slice(&block[SCALE..]);
            }
        }
    });
}

/// Writes the scales `[cols / block][rows]` from number `first` on. A block with a code that is no
/// number gets a scale that is none: kernels need not look for the code.
pub(super) fn scales(rows: &Rows<'_>, nan: bool, first: usize, out: &mut [u8]) {
    threads::fill(out, SCALE, |share, out| {
        let first = first + share;
        for (i, out) in out.as_chunks_mut::<SCALE>().0.iter_mut().enumerate() {
            let (block, row) = ((first + i) / rows.len, (first + i) % rows.len);
            let Some(row) = rows.get(row) else { continue };
            let bytes = row.format.block_bytes();
            let block = &row.bytes[block * bytes..][..bytes];
            *out = if nan && has_nan(block) { f32::NAN.to_le_bytes() } else { scale(block) };
        }
    });
}
