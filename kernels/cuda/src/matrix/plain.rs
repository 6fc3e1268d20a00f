//! Numbers that stay numbers: copied as they are, or from one 16-bit type to the other.

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use kernels::Format;

use super::rows::Rows;
use super::threads;
use crate::tensor::Kind;

/// Whether a magnitude that f16 does not reach is among bf16 numbers.
pub(super) fn beyond_f16(rows: &Rows<'_>) -> bool {
    rows.parts().iter().filter(|(_, part)| part.format == Format::Bf16).any(|(_, part)| {
        let numbers = part.bytes.as_chunks::<2>().0;
        let shares = threads::fold(numbers.len(), part.bytes.len(), |range| {
            // 65504 is the largest f16; the next bf16 is 65536, bits 0x4780. Infinity stays.
            let bits = |number: &[u8; 2]| u16::from_le_bytes(*number) & 0x7fff;
            let most = numbers[range].iter().map(bits).filter(|&bits| bits < 0x7f80).max();
            most.is_some_and(|most| most >= 0x4780)
        });
        shares.contains(&true)
    })
}

/// Writes elements of `bytes` as `kind`, from byte `from` of the result on; only whole elements.
pub(super) fn fill(format: Format, bytes: &[u8], kind: Kind, from: usize, out: &mut [u8]) {
    let (element, of_file) = (kind.bytes(), format.block_bytes());
    // A share is many elements: a thread is worth its start, and writes whole lines.
    let unit = 4096;
    threads::fill(out, unit, |share, out| {
        let first = (from + share * unit) / element;
        let bytes = &bytes[first * of_file..][..out.len() / element * of_file];
        match (format, kind) {
            (Format::Bf16, Kind::F32) => {
                for (out, bytes) in out.as_chunks_mut::<4>().0.iter_mut().zip(bytes.as_chunks().0) {
                    *out = bf16::from_le_bytes(*bytes).to_f32().to_le_bytes();
                }
            }
            (Format::Bf16, Kind::F16) => convert::<bf16, f16>(bytes, out),
            (Format::F16, Kind::Bf16) => convert::<f16, bf16>(bytes, out),
            _ => out.copy_from_slice(bytes),
        }
    });
}

/// Through f32, some at a time: files need not be aligned.
fn convert<A, B>(bytes: &[u8], out: &mut [u8])
where
    A: Pod,
    B: Pod,
    [A]: HalfFloatSliceExt,
    [B]: HalfFloatSliceExt,
{
    const SOME: usize = 512;
    let (mut from, mut wide, mut to) = ([A::zeroed(); SOME], [0.0; SOME], [B::zeroed(); SOME]);
    for (bytes, out) in bytes.chunks(2 * SOME).zip(out.chunks_mut(2 * SOME)) {
        let n = out.len() / 2;
        bytemuck::cast_slice_mut(&mut from[..n]).copy_from_slice(bytes);
        from[..n].convert_to_f32_slice(&mut wide[..n]);
        to[..n].convert_from_f32_slice(&wide[..n]);
        out.copy_from_slice(bytemuck::cast_slice(&to[..n]));
    }
}
