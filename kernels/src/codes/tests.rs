//! Codes and scales against the formats' definitions, over blocks of any bytes at all.

use super::{GROUP, Offset, Scales, bound, codes, coding, scales};
use crate::Format;
use crate::reference::dequant;

/// Bytes that look random and are the same in every run (xorshift).
fn bytes(seed: &mut u64, n: usize) -> Vec<u8> {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn codes_and_scales_make_the_numbers_of_the_file() {
    let mut seed = 0x5eed;
    for format in Format::ALL {
        let Some(how) = coding(format) else { continue };
        let mut finite = 0;
        for _ in 0..300 {
            let block = bytes(&mut seed, format.block_bytes());
            let mut want = vec![0.0; format.block_len()];
            dequant::row(format, &block, &mut want);
            let mut of = Scales::ZERO;
            scales(format, &block, &mut of);
            let most = bound(format, &block);
            for (k, &want) in want.iter().enumerate() {
                let code = codes(format, &block, k / GROUP)[k % GROUP];
                assert!(usize::from(code) >> how.bits == 0, "{format:?}: code {code}");
                let value = how.table.map_or(f32::from(code), |table| table[usize::from(code)]);
                let value = value - how.bias;
                let (scale, offset) = (of.scales[k / how.group], of.offsets[k / how.group]);
                let found = match how.offset {
                    Offset::Zero => scale * (value - offset),
                    Offset::None | Offset::Minimum => scale * value - offset,
                };
                let size = (scale * value).abs() + offset.abs();
                let same = if want.is_finite() {
                    finite += 1;
                    (found - want).abs() <= 1e-6 * size
                } else {
                    !found.is_finite()
                };
                assert!(same, "{format:?} element {k}: {found}, not {want}");
                let offset = if how.offset == Offset::Minimum { offset.abs() } else { 0.0 };
                let within = scale.abs() <= most && offset <= most;
                assert!(within || !most.is_finite(), "{format:?}: {scale} {offset} within {most}");
            }
        }
        assert!(finite > 150 * format.block_len(), "{format:?}: {finite} numbers");
    }
}

#[test]
fn a_scale_that_is_no_number_has_no_bound() {
    let mut block = [0; 144];
    for at in [0, 2] {
        block[..4].fill(0);
        block[at + 1] = 0x7e;
        assert!(bound(Format::Q4K, &block).is_nan(), "at {at}");
    }
}
