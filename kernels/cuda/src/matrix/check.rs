//! Sizes come from files: they are checked, not trusted. What passes here is packed without a
//! further look at lengths.

use kernels::{Error, Format, MatrixPart, codes};

/// Kernels count rows and columns in 32 bits.
const PLAIN_MAX: usize = i32::MAX as usize;
/// Columns of quantized weights: a row block of 8-bit codes then fits an upload buffer.
const COLS_MAX: usize = 1 << 20;

/// Checks a part of a matrix of `cols` columns.
///
/// # Errors
/// Bytes that do not fit the shape, a shape that does not fit its format or the other parts, or an
/// order that is no permutation.
pub(super) fn part(part: &MatrixPart<'_>, cols: usize) -> Result<(), Error> {
    let block = part.format.block_len();
    let shaped = part.cols == cols && cols > 0 && part.rows > 0 && cols.is_multiple_of(block);
    let most = if part.format.is_quantized() { COLS_MAX } else { PLAIN_MAX };
    if !shaped || cols > most || part.rows > PLAIN_MAX {
        return Err(Error::Unsupported(format!(
            "a matrix part of {} x {} in {} (blocks of {block}) beside {cols} columns",
            part.rows,
            part.cols,
            part.format.name()
        )));
    }
    let row = (cols / block).checked_mul(part.format.block_bytes());
    let wanted = row.and_then(|row| row.checked_mul(part.rows)).unwrap_or(usize::MAX);
    if part.bytes.len() != wanted {
        return Err(Error::MatrixBytes { wanted, found: part.bytes.len() });
    }
    debug_assert!(
        codes::coding(part.format).is_none() || block.is_multiple_of(codes::GROUP),
        "all blocks of codes are whole groups"
    );
    part.order.map_or(Ok(()), |order| permutation(order, cols))
}

fn permutation(order: &[u32], cols: usize) -> Result<(), Error> {
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
///
/// # Errors
/// A scale for which that is no number any more.
pub(super) fn f8_scale(scale: f32) -> Result<(), Error> {
    if scale.is_finite() && scale.abs() >= 2_f32.powi(119) {
        return Err(Error::Unsupported(format!("a scale of {scale} for 8-bit floats")));
    }
    Ok(())
}

/// The largest zero point that GPTQ's files have. Kernels rely on it: up to here a code less its
/// zero point is exact in bf16.
const ZERO_MAX: u16 = 256;

/// # Errors
/// A zero point for which kernels would round.
pub(super) fn zero_point(format: Format, zero: u16) -> Result<(), Error> {
    if zero > ZERO_MAX {
        let what = format!("a zero point of {zero} in {} ({ZERO_MAX} at most)", format.name());
        return Err(Error::Unsupported(what));
    }
    Ok(())
}
