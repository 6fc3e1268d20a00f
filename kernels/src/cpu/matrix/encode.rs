//! File rows into panels, as [`super::layout`] says. Runs once, at load.

use crate::Format;
use crate::compute::MatrixPart;
use crate::cpu::isa::Isa;

use super::coding::{Codes, DELTAS_AT, Minimum, Scaling};
use super::layout::{Floats, GROUP, Layout, PAIR, PANEL, Packing, QUAD};
use crate::codes::{blocks, points};

mod codes;

/// Fills the (zeroed) panel that starts at row `first`. Rows past the end stay zero.
pub(super) fn panel(
    isa: Isa,
    part: &MatrixPart<'_>,
    layout: &Layout,
    first: usize,
    out: &mut [u8],
) {
    let row_bytes = part.format.row_bytes(part.cols);
    let rows = layout.rows.min(part.rows - first);
    let row = |r: usize| &part.bytes[(first + r) * row_bytes..][..row_bytes];
    match layout.packing {
        Packing::Plain if part.format == Format::F16 => units::<2>(rows, row, out),
        // Two bf16 that are neighbours in k share a lane, and lie side by side in the file.
        Packing::Plain => units::<4>(rows, row, out),
        Packing::Floats(floats) => {
            for r in 0..rows {
                small_floats(floats, row(r), r, out);
            }
        }
        Packing::Codes(coded) => {
            for r in 0..rows {
                scales(part, &coded, row(r), r, out);
            }
            let bytes = &part.bytes[first * row_bytes..][..rows * row_bytes];
            let rows = codes::Rows { format: part.format, cols: part.cols, bytes };
            codes::codes(isa, rows, &coded, out);
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

fn scales(part: &MatrixPart<'_>, codes: &Codes, row: &[u8], lane: usize, panel: &mut [u8]) {
    let format = part.format;
    let groups = format.block_len() / GROUP;
    for (i, block) in row.chunks_exact(format.block_bytes()).enumerate() {
        let out = &mut panel[codes.scales_at(i * groups)..];
        let mut put = |at: usize, bytes: &[u8]| {
            out[at * PANEL + lane * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
        };
        match codes.scaling {
            Scaling::Power => put(0, &block[..1]),
            Scaling::Zero => {
                put(0, &block[..4]);
                put(4, &block[4..6]);
            }
            _ => put(0, &blocks::scale(format, block)),
        }
        let minimum = codes.coding.minimum() == Minimum::Added;
        if minimum || matches!(codes.scaling, Scaling::Minima | Scaling::Nibbles) {
            put(2, &blocks::minimum(format, block));
        }
        let (at, count) = match codes.scaling {
            Scaling::F16 | Scaling::Power | Scaling::Zero => continue,
            Scaling::Per32 | Scaling::Shifted => (2, 8),
            Scaling::Per16 | Scaling::Deltas => (2, 16),
            Scaling::Minima | Scaling::Nibbles => (4, 16),
        };
        for (i, sub) in blocks::sub_scales(format, block).into_iter().take(count).enumerate() {
            put(at + i, &[sub]);
        }
        if codes.scaling == Scaling::Deltas {
            put(DELTAS_AT / PANEL, &points::deltas(block).to_le_bytes());
        }
    }
}

fn small_floats(floats: Floats, row: &[u8], lane: usize, panel: &mut [u8]) {
    let file = 4 + floats.block / if floats.table.is_some() { 2 } else { 1 };
    let blocks = row.chunks_exact(file).zip(panel.chunks_exact_mut(floats.bytes()));
    for (block, out) in blocks {
        let (scale, codes) = block.split_at(4);
        let (scales, out) = out.split_at_mut(Floats::SCALES);
        scales[4 * lane..][..4].copy_from_slice(scale);
        if floats.table.is_some() {
            for (v, four) in codes.chunks_exact(4).enumerate() {
                for (b, byte) in four.iter().enumerate() {
                    // Files keep the first of two codes in the high half.
                    out[(v * QUAD + lane) * 4 + b] = byte.rotate_left(4);
                }
            }
            continue;
        }
        for (k, &code) in codes.iter().enumerate() {
            out[k * QUAD + lane] = code;
        }
        if codes.iter().any(|code| code & 0x7f == 0x7f) {
            scales[4 * lane..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    }
}
