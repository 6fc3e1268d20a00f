//! Words of a stored tensor, and the blocks that are written from them (see `kernels::Format`).

use super::super::shards::Tensor;

/// Bytes before the codes of a block of `U2` to `U8`.
pub(super) const HEAD: usize = 8;

/// Scale and zero point of a block of codes.
pub(super) fn head(out: &mut [u8], scale: f32, zero: u16) {
    out[..4].copy_from_slice(&scale.to_le_bytes());
    out[4..6].copy_from_slice(&zero.to_le_bytes());
}

/// Puts code `at` of a block, whose codes are still zero, into place.
pub(super) fn put(codes: &mut [u8], bits: usize, at: usize, code: u32) {
    let (byte, shift) = (bits * at / 8, bits * at % 8);
    codes[byte] |= (code << shift) as u8;
    if shift + bits > 8 {
        codes[byte + 1] |= (code >> (8 - shift)) as u8;
    }
}

/// 32-bit word `at` of a tensor.
pub(super) fn word(tensor: &Tensor<'_>, at: usize) -> u32 {
    let bytes = &tensor.bytes[4 * at..][..4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Field `at` of `bits` bits in the words from `first` on that lie `step` words apart, lowest bits
/// first.
pub(super) fn field(tensor: &Tensor<'_>, first: usize, step: usize, bits: usize, at: usize) -> u32 {
    let (index, shift) = (bits * at / 32, bits * at % 32);
    let word_of = |n: usize| word(tensor, first + n * step);
    let mut value = word_of(index) >> shift;
    if shift + bits > 32 {
        value |= word_of(index + 1) << (32 - shift);
    }
    value & ((1 << bits) - 1)
}

/// All numbers of a tensor as f32; `None` for element types that are none of a scale.
pub(super) fn numbers(tensor: &Tensor<'_>) -> Option<Vec<f32>> {
    let halves = || tensor.bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let words = || tensor.bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
    Some(match tensor.dtype.name {
        "F32" => words().map(f32::from_le_bytes).collect(),
        "F16" => halves().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect(),
        "BF16" => halves().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect(),
        "F8_E8M0" => tensor.bytes.iter().map(|&power| power_of_two(power)).collect(),
        _ => return None,
    })
}

/// `2^(code - 127)`, NaN for 255 (OCP microscaling formats, E8M0).
fn power_of_two(code: u8) -> f32 {
    match code {
        // Below the smallest normal number: half of it.
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        power => f32::from_bits(u32::from(power) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for (code, wanted) in [(0, 2_f32.powi(-127)), (1, 2_f32.powi(-126)), (127, 1.0)] {
            assert_eq!(power_of_two(code), wanted);
        }
        assert_eq!(power_of_two(254), 2_f32.powi(127));
        assert!(power_of_two(255).is_nan());
    }

    #[test]
    fn codes_go_where_the_format_says() {
        for bits in [2, 3, 4, 8] {
            let mut codes = vec![0; 32 * bits / 8];
            let code = |at: usize| (at * 5 + 3) as u32 & ((1 << bits) - 1);
            (0..32).for_each(|at| put(&mut codes, bits, at, code(at)));
            for at in 0..32 {
                let bit = |n: usize| u32::from(codes[n / 8] >> (n % 8) & 1);
                let found = (0..bits).fold(0, |sum, n| sum | bit(bits * at + n) << n);
                assert_eq!(found, code(at), "{bits} bits, element {at}");
            }
        }
    }
}
