//! The numbers that stored weights stand for, written down as the format's definition says it.
//!
//! Source: the GGML block definitions. The K formats keep 256 elements in two halves of 128 whose
//! quarters share bytes; scales and minima have 4, 6 or 8 bits.

use half::{bf16, f16};

use crate::Format;
use crate::format::grids;

mod grid;
mod table;

pub(crate) use table::e4m3;

/// Dequantizes one row of `out.len()` elements from its file bytes.
///
/// # Panics
/// `bytes` does not hold exactly this row.
pub fn row(format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), format.row_bytes(out.len()), "bytes of a row in {format:?}");
    let blocks = bytes.chunks_exact(format.block_bytes());
    for (block, out) in blocks.zip(out.chunks_exact_mut(format.block_len())) {
        match format {
            Format::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Format::F16 => out[0] = half(block, 0),
            Format::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => simple(format, block, out),
            Format::Q8_0 => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = half(block, 0) * f32::from(block[2 + i] as i8);
                }
            }
            Format::Q2K => q2_k(block, out),
            Format::Q3K => q3_k(block, out),
            Format::Q4K | Format::Q5K => q45_k(format, block, out),
            Format::Q6K => q6_k(block, out),
            Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S => grid::iq2(format, block, out),
            Format::Iq3Xxs | Format::Iq3S => grid::iq3(format, block, out),
            Format::Iq1S | Format::Iq1M => grid::iq1(format, block, out),
            Format::Tq1_0 => grid::tq1_0(block, out),
            Format::Tq2_0 => tq2_0(block, out),
            Format::Iq4Nl | Format::Iq4Xs => table::iq4(format, block, out),
            Format::Mxfp4 => table::mxfp4(block, out),
            Format::U2(_) => table::grouped(2, block, out),
            Format::U3(_) => table::grouped(3, block, out),
            Format::U4(_) => table::grouped(4, block, out),
            Format::U8(_) => table::grouped(8, block, out),
            Format::F8E4M3(_) => table::f8_e4m3(block, out),
            Format::Nf4 => table::four_bit_float(&grids::NF4, block, out),
            Format::Fp4 => table::four_bit_float(&grids::FP4, block, out),
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Element i < 16 is the low half of byte i, element i + 16 the high half.
fn simple(format: Format, block: &[u8], out: &mut [f32]) {
    let (bits_at, codes_at) = match format {
        Format::Q4_0 => (None, 2),
        Format::Q4_1 => (None, 4),
        Format::Q5_0 => (Some(2), 6),
        _ => (Some(4), 8),
    };
    for (i, out) in out.iter_mut().enumerate() {
        let byte = block[codes_at + i % 16];
        let low = if i < 16 { byte & 15 } else { byte >> 4 };
        let high = bits_at.map_or(0, |at| block[at + i / 8] >> (i % 8) & 1);
        let code = i32::from(low) + 16 * i32::from(high);
        *out = match format {
            Format::Q4_0 => half(block, 0) * (code - 8) as f32,
            Format::Q5_0 => half(block, 0) * (code - 16) as f32,
            _ => half(block, 0) * code as f32 + half(block, 2),
        };
    }
}

fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let code = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let scale = scales[i / 16];
        *out = d * f32::from(scale & 15) * f32::from(code) - dmin * f32::from(scale >> 4);
    }
}

fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    for (i, out) in out.iter_mut().enumerate() {
        let low = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        // A missing high bit means minus four.
        let code = i32::from(low) - if high[i % 32] >> (i / 32) & 1 == 1 { 0 } else { 4 };
        let s = i / 16;
        let scale_low = if s < 8 { scales[s] & 15 } else { scales[s - 8] >> 4 };
        let scale = i32::from(scale_low) + 16 * i32::from(scales[8 + s % 4] >> (s / 4 * 2) & 3);
        *out = half(block, 108) * (scale - 32) as f32 * code as f32;
    }
}

fn q45_k(format: Format, block: &[u8], out: &mut [f32]) {
    let packed = &block[4..16];
    let (high, codes) = match format {
        Format::Q4K => (None, &block[16..144]),
        _ => (Some(&block[16..48]), &block[48..176]),
    };
    for (i, out) in out.iter_mut().enumerate() {
        let g = i / 32;
        let (scale, minimum) = if g < 4 {
            (packed[g] & 63, packed[g + 4] & 63)
        } else {
            (packed[g + 4] & 15 | packed[g - 4] >> 6 << 4, packed[g + 4] >> 4 | packed[g] >> 6 << 4)
        };
        let byte = codes[g / 2 * 32 + i % 32];
        let low = if g % 2 == 0 { byte & 15 } else { byte >> 4 };
        let code = low + high.map_or(0, |h| (h[i % 32] >> g & 1) * 16);
        *out = half(block, 0) * f32::from(scale) * f32::from(code)
            - half(block, 2) * f32::from(minimum);
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (lows, highs, scales) = (&block[..128], &block[128..192], &block[192..208]);
    for (i, out) in out.iter_mut().enumerate() {
        let (half_of, within) = (i / 128, i % 128);
        let byte = lows[half_of * 64 + within % 64];
        let low = if within < 64 { byte & 15 } else { byte >> 4 };
        let high = highs[half_of * 32 + within % 32] >> (within / 32 * 2) & 3;
        let code = i32::from(low) + 16 * i32::from(high) - 32;
        *out = half(block, 208) * f32::from(scales[i / 16] as i8) * code as f32;
    }
}

fn tq2_0(block: &[u8], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let code = block[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *out = half(block, 64) * (i32::from(code) - 1) as f32;
    }
}
