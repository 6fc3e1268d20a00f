//! Reads the file's blocks: a block's scales, and its codes as bytes in natural order.
//!
//! Why so: packing needs codes, not numbers. Every format comes out alike, as unsigned codes and
//! sub-scales, and only this file knows how each lies in its block. The other reader of blocks,
//! `reference::dequant`, shares no code with it: tests hold one against the other.

use crate::Format;

use super::GROUP;
use super::points;

/// Codes of group `group` of a block, each in a byte.
#[inline(always)]
pub(crate) fn codes(format: Format, block: &[u8], group: usize) -> [u8; GROUP] {
    match format {
        Format::Q4_0 | Format::Iq4Nl => halves(&block[2..18]),
        Format::Q4_1 => halves(&block[4..20]),
        Format::Q5_0 => fifth(halves(&block[6..22]), &block[2..6]),
        Format::Q5_1 => fifth(halves(&block[8..24]), &block[4..8]),
        Format::Q8_0 => window(block, 2).map(|b| b ^ 0x80),
        Format::Q2K => {
            let (half, shift) = (group / 4, 2 * (group % 4));
            window(block, 16 + 32 * half).map(|q| q >> shift & 3)
        }
        Format::Q3K => {
            let (half, shift) = (group / 4, 2 * (group % 4));
            let low = window(block, 32 + 32 * half).map(|q| q >> shift & 3);
            merge(low, window(block, 0).map(|h| (h >> group & 1) << 2))
        }
        Format::Q4K => nibble(window(block, 16 + 32 * (group / 2)), group % 2),
        Format::Q5K => {
            let low = nibble(window(block, 48 + 32 * (group / 2)), group % 2);
            merge(low, window(block, 16).map(|h| (h >> group & 1) << 4))
        }
        Format::Q6K => {
            let (half, quarter) = (group / 4, group % 4);
            let low = nibble(window(block, 64 * half + 32 * (quarter % 2)), quarter / 2);
            let high = window(block, 128 + 32 * half);
            merge(low, high.map(|h| (h >> (2 * quarter) & 3) << 4))
        }
        Format::Iq4Xs => halves(&block[8 + 16 * group..][..16]),
        Format::Mxfp4 => halves(&block[1..17]),
        Format::Tq2_0 => {
            let (half, shift) = (group / 4, 2 * (group % 4));
            window(block, 32 * half).map(|q| q >> shift & 3)
        }
        Format::U2(_) => packed(2, &block[8 + 8 * group..]),
        Format::U3(_) => packed(3, &block[8 + 12 * group..]),
        Format::U4(_) => pairs(&block[8 + 16 * group..]),
        Format::U8(_) => window(block, 8 + 32 * group),
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("no codes in {format:?}"),
        Format::F8E4M3(_) | Format::Nf4 | Format::Fp4 => unreachable!("floats in {format:?}"),
        _ => points::codes(format, block, group),
    }
}

/// Sub-scale of each 16 or 32 elements of a super-block as the layout stores it, scales before
/// minima.
#[inline(always)]
pub(crate) fn sub_scales(format: Format, block: &[u8]) -> [u8; 16] {
    match format {
        Format::Q2K => std::array::from_fn(|i| block[i]),
        Format::Q3K => std::array::from_fn(|i| {
            let packed = &block[96..108];
            let low = packed[i % 8] >> (4 * (i / 8)) & 15;
            let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
            (low | high << 4).wrapping_sub(32)
        }),
        Format::Q4K | Format::Q5K => std::array::from_fn(|i| six_bits(&block[4..16], i)),
        Format::Q6K => std::array::from_fn(|i| block[192 + i]),
        Format::Iq4Xs => std::array::from_fn(|i| {
            let low = block[4 + i % 8 / 2] >> (i % 2 * 4) & 15;
            let high = block[2 + i % 8 / 4] >> (i % 4 * 2) & 3;
            (low | high << 4).wrapping_sub(32)
        }),
        _ => points::sub_scales(format, block),
    }
}

/// The f16 scale of a block.
pub(crate) fn scale(format: Format, block: &[u8]) -> [u8; 2] {
    let at = match format {
        Format::Iq1M => return points::scattered_half(block),
        Format::Q2K => 80,
        Format::Q3K => 108,
        Format::Q6K => 208,
        Format::Tq1_0 => 52,
        Format::Tq2_0 => 64,
        _ => 0,
    };
    [block[at], block[at + 1]]
}

/// The f16 minimum of a block, where there is one.
pub(crate) fn minimum(format: Format, block: &[u8]) -> [u8; 2] {
    let at = if format == Format::Q2K { 82 } else { 2 };
    [block[at], block[at + 1]]
}

/// Codes of `bits` bits each, one after the other.
#[inline(always)]
fn packed(bits: usize, bytes: &[u8]) -> [u8; GROUP] {
    std::array::from_fn(|i| {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        // A code of 3 bits may lie in two bytes; the last one ends with its byte.
        let next = if shift + bits > 8 { bytes[byte + 1] } else { 0 };
        ((u16::from(bytes[byte]) | u16::from(next) << 8) >> shift) as u8 & ((1 << bits) - 1)
    })
}

/// Scale `i` (below 8) or minimum `i - 8` of the 12 bytes that Q4K and Q5K keep them in.
#[inline(always)]
fn six_bits(packed: &[u8], i: usize) -> u8 {
    let (j, minimum) = (i % 8, i / 8);
    if j < 4 {
        packed[j + 4 * minimum] & 63
    } else {
        let low = packed[j + 4] >> (4 * minimum) & 15;
        low | packed[j - 4 + 4 * minimum] >> 6 << 4
    }
}

#[inline(always)]
fn window(block: &[u8], at: usize) -> [u8; GROUP] {
    let mut out = [0; GROUP];
    out.copy_from_slice(&block[at..at + GROUP]);
    out
}

#[inline(always)]
fn nibble(bytes: [u8; GROUP], high: usize) -> [u8; GROUP] {
    bytes.map(|b| b >> (4 * high) & 15)
}

/// 16 bytes: low halves, then high halves.
#[inline(always)]
fn halves(bytes: &[u8]) -> [u8; GROUP] {
    let mut out = [0; GROUP];
    for (i, b) in bytes.iter().enumerate() {
        out[i] = b & 15;
        out[i + 16] = b >> 4;
    }
    out
}

/// Bit i of four bytes is bit 4 of code i.
#[inline(always)]
fn fifth(codes: [u8; GROUP], bits: &[u8]) -> [u8; GROUP] {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    std::array::from_fn(|i| codes[i] | ((bits >> i & 1) << 4) as u8)
}

/// 16 bytes: the low half of each, then its high half.
#[inline(always)]
fn pairs(bytes: &[u8]) -> [u8; GROUP] {
    let bytes: &[u8; GROUP / 2] = bytes.first_chunk().expect("a whole group");
    std::array::from_fn(|i| bytes[i / 2] >> (i % 2 * 4) & 15)
}

#[inline(always)]
fn merge(low: [u8; GROUP], high: [u8; GROUP]) -> [u8; GROUP] {
    std::array::from_fn(|i| low[i] | high[i])
}
