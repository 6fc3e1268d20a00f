//! One row of a panel back into f32: the embedding gather. Plain code; the kernels read panels
//! with their own vector code.

use half::{bf16, f16};

use crate::Format;

use super::layout::{
    GROUP, Layout, PAIR, PANEL, SUPER, VECTOR, code_bias, code_bits, codes_at, scales_at,
};

/// Dequantizes lane `lane` of a panel. The arithmetic is the format's definition, so the numbers
/// are those of the file bit for bit.
pub(super) fn row(layout: &Layout, panel: &[u8], lane: usize, out: &mut [f32]) {
    match layout.format {
        Format::F32 => {
            for (k, out) in out.iter_mut().enumerate() {
                *out = f32::from_le_bytes(at(panel, (k * PAIR + lane) * 4));
            }
        }
        Format::F16 => {
            for (k, out) in out.iter_mut().enumerate() {
                *out = f16::from_le_bytes(at(panel, (k * PAIR + lane) * 2)).to_f32();
            }
        }
        Format::Bf16 => {
            for (k, out) in out.iter_mut().enumerate() {
                let pair = (k / 2 * PAIR + lane) * 4;
                *out = bf16::from_le_bytes(at(panel, pair + k % 2 * 2)).to_f32();
            }
        }
        _ => {
            for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
                group(layout.format, panel, g, lane, out);
            }
        }
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..].first_chunk().copied().expect("inside the panel")
}

fn group(format: Format, panel: &[u8], g: usize, lane: usize, out: &mut [f32]) {
    let bits = code_bits(format);
    let bias = code_bias(format);
    let codes = &panel[codes_at(format, g)..][..bits * VECTOR];
    for (half, out) in out.chunks_exact_mut(GROUP / 2).enumerate() {
        let (scale, minimum) = scale_of(format, panel, 2 * g + half, lane);
        for (k, out) in out.iter_mut().enumerate() {
            let code = code(bits, codes, lane, half * GROUP / 2 + k);
            *out = scale * (i32::from(code) - bias) as f32 - minimum;
        }
    }
}

/// Code of element `k` of a group.
fn code(bits: usize, group: &[u8], lane: usize, k: usize) -> u8 {
    let (j, byte) = (k / 4, lane * 4 + k % 4);
    let (mut planes, mut shift, mut code) = (group, 0, 0);
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
    code
}

/// Scale of a sixteenth part `s` of a row (16 elements), and what to subtract.
fn scale_of(format: Format, panel: &[u8], s: usize, lane: usize) -> (f32, f32) {
    let bytes = &panel[scales_at(format, s / 2)..];
    let half = |i: usize| f16::from_le_bytes(at(bytes, 2 * (i * PANEL + lane))).to_f32();
    let sub = |halves: usize, i: usize| bytes[(2 * halves + i) * PANEL + lane];
    let (group, sixteenth) = (s / 2 % 8, s % (SUPER / 16));
    match format {
        Format::Q4_1 | Format::Q5_1 => (half(0), -half(1)),
        Format::Q4K | Format::Q5K => {
            (half(0) * f32::from(sub(2, group)), half(1) * f32::from(sub(2, 8 + group)))
        }
        Format::Q2K => {
            let both = sub(2, sixteenth);
            (half(0) * f32::from(both & 15), half(1) * f32::from(both >> 4))
        }
        Format::Q3K | Format::Q6K => (half(0) * f32::from(sub(1, sixteenth) as i8), 0.0),
        _ => (half(0), 0.0),
    }
}
