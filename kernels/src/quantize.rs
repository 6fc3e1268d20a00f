//! Rows of f32 to the blocks of a GGUF file: the other direction of `reference::dequant`.
//!
//! Block formats are lossy, so a block's scale is searched for: candidates around the plain one,
//! each fitted to its codes by least squares (see `search`), the stored scale rounded as the file
//! keeps it, and the codes chosen again for it. Squares of differences count by the square of the
//! value and the block's mean square, half each: large weights matter more, and small ones still
//! do. Deterministic; values that lie on a block's grid come back as they were.
//!
//! Knows formats and numbers, not tensors: which format a tensor gets is the engine's business.

use half::{bf16, f16};

use crate::Format;

mod affine;
mod search;
mod signed;
mod single;
#[cfg(test)]
mod tests;

/// The formats that [`row`] writes.
pub const FORMATS: [Format; 15] = [
    Format::F32,
    Format::F16,
    Format::Bf16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Iq4Nl,
    Format::Q2K,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq4Xs,
];

/// Writes a row of finite values as file bytes. Values beyond a format's range become its largest.
///
/// # Panics
/// `out` is not as long as this row in `format`, or `format` is not one of [`FORMATS`].
pub fn row(format: Format, values: &[f32], out: &mut [u8]) {
    assert_eq!(out.len(), format.row_bytes(values.len()), "bytes of a row in {format:?}");
    let blocks = out.chunks_exact_mut(format.block_bytes());
    for (values, out) in values.chunks_exact(format.block_len()).zip(blocks) {
        match format {
            Format::F32 => out.copy_from_slice(&values[0].to_le_bytes()),
            Format::F16 => out.copy_from_slice(&half(values[0]).to_le_bytes()),
            Format::Bf16 => out.copy_from_slice(&brain(values[0]).to_le_bytes()),
            Format::Q8_0 => single::q8_0(values, out),
            Format::Q4_0 | Format::Q5_0 => single::centred(format, values, out),
            Format::Q4_1 | Format::Q5_1 => single::shifted(format, values, out),
            Format::Iq4Nl => single::iq4_nl(values, out),
            Format::Q3K => signed::q3_k(values, out),
            Format::Q6K => signed::q6_k(values, out),
            Format::Iq4Xs => signed::iq4_xs(values, out),
            Format::Q2K => affine::q2_k(values, out),
            Format::Q4K | Format::Q5K => affine::q45_k(format, values, out),
            other => panic!("{other:?} cannot be written"),
        }
    }
}

/// The nearest half, the largest one for what lies beyond.
fn half(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// The nearest bfloat16, the largest one for what would round to infinity.
fn brain(value: f32) -> bf16 {
    bf16::from_f32(value.clamp(bf16::MIN.to_f32(), bf16::MAX.to_f32()))
}

/// Puts a scale into a block; returns what is stored.
fn store(value: f32, block: &mut [u8], at: usize) {
    block[at..at + 2].copy_from_slice(&half(value).to_le_bytes());
}
