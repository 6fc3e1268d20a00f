//! One row of a panel back into f32: the embedding gather. Plain code; the kernels read panels
//! with their own vector code.

use half::{bf16, f16};

use crate::Format;
use crate::reference::dequant::e4m3;

use super::coding::{Codes, DELTAS_AT, Minimum, Scaling};
use super::layout::{Floats, GROUP, Layout, PAIR, PANEL, Packing, QUAD, VECTOR};

/// Elements that share a scale in every format.
const HALF: usize = GROUP / 2;

/// Dequantizes lane `lane` of a panel and gives `out` each column with its weight. The arithmetic
/// is the format's definition, so the numbers are those of the file bit for bit.
pub(super) fn row(layout: &Layout, panel: &[u8], lane: usize, mut out: impl FnMut(usize, f32)) {
    match layout.packing {
        Packing::Plain => {
            (0..layout.cols).for_each(|k| out(k, plain(layout.format, panel, k, lane)));
        }
        Packing::Floats(floats) => {
            for (b, panel) in panel.chunks_exact(floats.bytes()).enumerate() {
                let (scales, codes) = panel.split_at(Floats::SCALES);
                let scale = f32::from_le_bytes(at(scales, 4 * lane));
                for k in 0..floats.block {
                    out(b * floats.block + k, scale * small_float(floats, codes, k, lane));
                }
            }
        }
        Packing::Codes(codes) => {
            for half in 0..layout.cols / HALF {
                let (scale, minimum) = scale_of(&codes, panel, half * HALF, lane);
                for k in half * HALF..(half + 1) * HALF {
                    let code = code(&codes, panel, k, lane);
                    let table = codes.coding.table();
                    let value = if table { codes.table[usize::from(code)] } else { code };
                    let value = (i32::from(value) - codes.coding.bias()) as f32;
                    let weight = match codes.coding.minimum() {
                        Minimum::None => scale * value,
                        Minimum::Added => scale * value + minimum,
                        Minimum::Subtracted => scale * value - minimum,
                        Minimum::Zero => scale * (f32::from(code) - minimum),
                    };
                    out(k, weight);
                }
            }
        }
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..].first_chunk().copied().expect("inside the panel")
}

fn plain(format: Format, panel: &[u8], k: usize, lane: usize) -> f32 {
    match format {
        Format::F32 => f32::from_le_bytes(at(panel, (k * PAIR + lane) * 4)),
        Format::F16 => f16::from_le_bytes(at(panel, (k * PAIR + lane) * 2)).to_f32(),
        _ => bf16::from_le_bytes(at(panel, (k / 2 * PAIR + lane) * 4 + k % 2 * 2)).to_f32(),
    }
}

fn small_float(floats: Floats, codes: &[u8], k: usize, lane: usize) -> f32 {
    match floats.table {
        Some(table) => {
            let byte = codes[(k / 8 * QUAD + lane) * 4 + k % 8 / 2];
            table[usize::from(byte >> (k % 2 * 4) & 15)]
        }
        None => e4m3(codes[k * QUAD + lane]),
    }
}

/// Code of column `k`.
fn code(codes: &Codes, panel: &[u8], k: usize, lane: usize) -> u8 {
    let (g, k) = (k / GROUP, k % GROUP);
    let bits = codes.group_bytes / VECTOR;
    let (j, byte) = (k / 4, lane * 4 + k % 4);
    let (mut planes, mut shift, mut code) = (&panel[codes.codes_at(g)..], 0, 0);
    for plane in [8, 4, 2, 1] {
        if bits & plane == 0 {
            continue;
        }
        let (here, rest) = planes.split_at(plane * VECTOR);
        let value = match plane {
            8 => here[j * VECTOR + byte],
            4 => here[j % 4 * VECTOR + byte] >> (4 * (j / 4)) & 15,
            2 => here[j / 4 * VECTOR + byte] >> (2 * (j % 4)) & 3,
            _ => here[byte] >> j & 1,
        };
        code |= value << shift;
        (planes, shift) = (rest, shift + plane);
    }
    if codes.scaling == Scaling::Deltas {
        let words = &panel[codes.scales_at(g) + DELTAS_AT..];
        let deltas = u32::from_le_bytes(at(words, 4 * lane));
        code |= ((deltas >> (g % 8 * 4 + k / 8) & 1) << 2) as u8;
    }
    code
}

/// Scale of column `k`, and what to add or subtract.
fn scale_of(codes: &Codes, panel: &[u8], k: usize, lane: usize) -> (f32, f32) {
    let bytes = &panel[codes.scales_at(k / GROUP)..];
    let half = |i: usize| f16::from_le_bytes(at(bytes, 2 * (i * PANEL + lane))).to_f32();
    let sub = |at: usize, i: usize| bytes[(at + i) * PANEL + lane];
    let signed = |i: usize| codes.factor * half(0) * f32::from(sub(2, i) as i8);
    let (group, sixteenth) = (k / GROUP % 8, k / (GROUP / 2) % 16);
    match codes.scaling {
        Scaling::F16 if codes.coding.minimum() == Minimum::Added => (half(0), half(1)),
        // The zero point of the ternary formats.
        Scaling::F16 => (half(0), 1.0),
        Scaling::Power => {
            let bits = (u64::from(sub(0, 0)) + (1023 - 128)) << 52;
            (f64::from_bits(bits) as f32, 0.0)
        }
        Scaling::Zero => {
            let zero = u16::from_le_bytes(at(bytes, 4 * PANEL + 2 * lane));
            (f32::from_le_bytes(at(bytes, 4 * lane)), f32::from(zero))
        }
        Scaling::Per32 => (signed(group), 0.0),
        Scaling::Per16 | Scaling::Deltas => (signed(sixteenth), 0.0),
        Scaling::Shifted => {
            let both = sub(2, group);
            let zero = if both > 127 { 1.125 } else { 0.875 };
            (half(0) * f32::from(both & 127), zero)
        }
        Scaling::Minima => {
            (half(0) * f32::from(sub(4, group)), half(1) * f32::from(sub(4, 8 + group)))
        }
        Scaling::Nibbles => {
            let both = sub(4, sixteenth);
            (half(0) * f32::from(both & 15), half(1) * f32::from(both >> 4))
        }
    }
}
