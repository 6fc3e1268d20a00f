//! File rows into panels, as [`super::layout`] says. Runs once, at load.

use crate::Format;
use crate::compute::MatrixPart;

use super::blocks;
use super::layout::{GROUP, PAIR, PANEL, SUPER, VECTOR, code_bits, codes_at, scales_at};

/// Fills the (zeroed) panel that starts at row `first`. Rows past the end stay zero.
pub(super) fn panel(part: &MatrixPart<'_>, first: usize, out: &mut [u8]) {
    let row_bytes = part.format.row_bytes(part.cols);
    let most = if part.format.is_quantized() { PANEL } else { PAIR };
    let rows = most.min(part.rows - first);
    let row = |r: usize| &part.bytes[(first + r) * row_bytes..][..row_bytes];
    match part.format {
        Format::F32 => units::<4>(rows, row, out),
        Format::F16 => units::<2>(rows, row, out),
        // Two neighbours in k share a lane, and lie side by side in the file already.
        Format::Bf16 => units::<4>(rows, row, out),
        _ => {
            for r in 0..rows {
                scales(part, row(r), r, out);
            }
            codes(part, rows, row, out);
        }
    }
}

/// Plain numbers: `SIZE` bytes of each row in turn.
fn units<'a, const SIZE: usize>(rows: usize, row: impl Fn(usize) -> &'a [u8], out: &mut [u8]) {
    // Stretches short enough for what is read and written to stay in the first-level cache.
    const STRETCH: usize = 64;
    for (s, out) in out.chunks_mut(STRETCH * PAIR * SIZE).enumerate() {
        for r in 0..rows {
            let bytes = row(r);
            let start = (s * STRETCH * SIZE).min(bytes.len());
            let end = (start + STRETCH * SIZE).min(bytes.len());
            let (whole, rest) = bytes[start..end].as_chunks::<SIZE>();
            for (unit, bytes) in whole.iter().enumerate() {
                out[(unit * PAIR + r) * SIZE..][..SIZE].copy_from_slice(bytes);
            }
            if !rest.is_empty() {
                out[(whole.len() * PAIR + r) * SIZE..][..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

fn scales(part: &MatrixPart<'_>, row: &[u8], lane: usize, panel: &mut [u8]) {
    let format = part.format;
    let (scale, minimum) = blocks::halves_at(format);
    let groups = format.block_len() / GROUP;
    for (i, block) in row.chunks_exact(format.block_bytes()).enumerate() {
        let out = &mut panel[scales_at(format, i * groups)..];
        out[2 * lane..][..2].copy_from_slice(&block[scale..scale + 2]);
        let mut at = 2 * PANEL;
        if let Some(minimum) = minimum {
            out[at + 2 * lane..][..2].copy_from_slice(&block[minimum..minimum + 2]);
            at *= 2;
        }
        if format.block_len() == SUPER {
            for (i, sub) in blocks::sub_scales(format, block).into_iter().enumerate() {
                out[at + i * PANEL + lane] = sub;
            }
        }
    }
}

/// One 64-byte vector: 4 codes of each of the 16 rows.
type Words = [u32; PANEL];

fn codes<'a>(
    part: &MatrixPart<'_>,
    rows: usize,
    row: impl Fn(usize) -> &'a [u8],
    panel: &mut [u8],
) {
    let format = part.format;
    let bits = code_bits(format);
    let groups = format.block_len() / GROUP;
    for g in 0..part.cols / GROUP {
        let out = &mut panel[codes_at(format, g)..][..bits * VECTOR];
        let mut vectors: [Words; 8] = [[0; PANEL]; 8];
        #[allow(clippy::needless_range_loop, reason = "a lane of every vector")]
        for r in 0..rows {
            let block = &row(r)[g / groups * format.block_bytes()..][..format.block_bytes()];
            let codes = blocks::codes(format, block, g % groups);
            for (j, four) in codes.chunks_exact(4).enumerate() {
                vectors[j][r] = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        planes(bits, &vectors, out);
    }
}

/// Splits codes into their bit planes.
fn planes(bits: usize, vectors: &[Words; 8], out: &mut [u8]) {
    let (mut out, mut shift) = (out, 0);
    for plane in [8, 4, 2, 1] {
        // 8 bits are one plane; fewer are made of planes of 4, 2 and 1, lowest bits in the widest.
        if bits & plane == 0 {
            continue;
        }
        let (here, rest) = out.split_at_mut(plane * VECTOR);
        let mask = 0x0101_0101 * ((1_u32 << plane) - 1);
        for (v, vector) in here.chunks_exact_mut(VECTOR).enumerate() {
            for (lane, word) in vector.chunks_exact_mut(4).enumerate() {
                // Vectors that share these bytes: v, v + plane, ... for nibbles; neighbours else.
                let word_of = |j: usize| vectors[j][lane] >> shift & mask;
                let packed = match plane {
                    8 => word_of(v),
                    4 => word_of(v) | word_of(v + 4) << 4,
                    2 => (0..4).fold(0, |w, i| w | word_of(4 * v + i) << (2 * i)),
                    _ => (0..8).fold(0, |w, i| w | word_of(i) << i),
                };
                word.copy_from_slice(&packed.to_le_bytes());
            }
        }
        (out, shift) = (rest, shift + plane);
    }
}
