//! MXFP4 as gpt-oss is published in: 4-bit floats (e2m1), a power of two for each 32 of them.
//!
//! ```text
//! X_blocks  U8 [experts, out, in / 32, 16]   byte b: elements 2b (low half) and 2b + 1
//! X_scales  U8 [experts, out, in / 32]       2^(scale - 127)
//! ```
//! The same tensor in bf16 is `[experts, in, out]`. Source: OCP microscaling formats.

use kernels::Format;

use super::super::LoadError;
use super::super::matrix::Matrix;
use super::super::shards::{Tensor, Tensors};
use super::{Found, Want};

/// Elements of a block, and bytes of its codes.
const BLOCK: usize = 32;
const CODES: usize = 16;
/// The power that stands for "no number".
const NAN: u8 = 255;

/// Opens a matrix, if it is stored so.
pub(super) fn open<'a>(
    tensors: &'a Tensors,
    want: &Want<'_>,
) -> Result<Option<Found<'a>>, LoadError> {
    let module = want.module();
    let Some(codes) = tensors.find(&format!("{module}_blocks")) else { return Ok(None) };
    let powers = tensors.need(&format!("{module}_scales"))?;
    let &Want { rows, cols, slab, .. } = want;
    if !cols.is_multiple_of(BLOCK) {
        return Err(codes.wrong(format!("is for rows of {cols}, no multiple of {BLOCK}")));
    }
    let of = slab.map(|slab| slab.of);
    let dims = |last: &[usize]| -> Vec<usize> {
        of.into_iter().chain([rows, cols / BLOCK]).chain(last.iter().copied()).collect()
    };
    codes.expect(&["U8"], &dims(&[CODES]))?;
    powers.expect(&["U8"], &dims(&[]))?;
    let cut = |tensor: &Tensor<'a>| {
        let each = tensor.bytes.len() / of.unwrap_or(1).max(1);
        let index = slab.map_or(0, |slab| slab.index);
        tensor.bytes.get(index * each..(index + 1) * each).unwrap_or_default()
    };
    let matrix = Blocks { codes: cut(&codes), powers: cut(&powers), tensor: powers, cols };
    Ok(Some(Found::coded(matrix, &[codes, powers])))
}

struct Blocks<'a> {
    codes: &'a [u8],
    powers: &'a [u8],
    /// Where the powers come from.
    tensor: Tensor<'a>,
    cols: usize,
}

impl Matrix for Blocks<'_> {
    fn format(&self) -> Format {
        Format::Mxfp4
    }

    fn bytes(&self) -> u64 {
        (self.codes.len() + self.powers.len()) as u64
    }

    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        if self.powers.contains(&NAN) {
            return Err(self.tensor.wrong("holds a scale that is no number; it is damaged"));
        }
        Ok(None)
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let blocks = first * self.cols / BLOCK..;
        for (at, out) in blocks.zip(out.chunks_exact_mut(1 + CODES)) {
            out[0] = self.powers[at];
            let codes = &self.codes[at * CODES..][..CODES];
            // Written: element n in the low half of byte n, n + 16 in the high.
            let code = |n: usize| codes[n / 2] >> (4 * (n % 2)) & 15;
            for (n, out) in out[1..].iter_mut().enumerate() {
                *out = code(n) | code(n + CODES) << 4;
            }
        }
    }
}
