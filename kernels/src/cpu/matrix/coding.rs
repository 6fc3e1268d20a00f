//! How integer codes and their scales lie in a panel of 16 rows.
//!
//! ```text
//! scales  of each block of the format, 16 rows side by side (see [`Scaling`]):
//!         F16      f16 scales [, f16 minima]
//!         Power    bytes e: the scale is 2^(e - 128)
//!         Zero     f32 scales, u16 zero points
//!         Per32    f16 d, then 8 signed bytes x 16 to multiply it with
//!         Shifted  f16 d, then 8 bytes x 16: scale, and in the top bit the sign of the shift
//!         Per16    f16 d, then 16 signed bytes x 16
//!         Deltas   as Per16, then a word a row: bit i is the third bit of the codes 8i..8i+8
//!         Minima   f16 d, f16 dmin, then 8 scales, 8 minima (Q4K Q5K), bytes x 16
//!         Nibbles  f16 d, f16 dmin, then 16 of scale | minimum << 4, bytes x 16
//! codes   per group of 32 k: bit planes, 64 bytes a bit. Vector j of a group is k 4j..4j+4.
//!         8 bits:       vectors 0..8
//!         4-bit plane:  4 x 64 bytes; vector j in the low half of j, or the high half of j - 4
//!         2-bit plane:  2 x 64 bytes; vector j in bits 2 (j % 4).. of j / 4
//!         1-bit plane:  64 bytes; vector j in bit j
//! ```
//! 5 bits are a 4-bit and a 1-bit plane, 6 a 4-bit and a 2-bit, 3 a 2-bit and a 1-bit. Sub-scales
//! stay bytes, so a packed matrix of whole 256s is at most 4 % larger than its file. Formats that
//! name several elements at once cannot stay as small: 16 rows look up 16 places of a grid, which
//! no instruction does fast. They are unpacked to a code an element, of 2 bits (`Tq1_0` 1.22 times
//! the file, `Iq1S` 1.48, and with a bit for eight elements `Iq1M` 1.54), 3 bits (`Iq2Xxs` 1.61,
//! `Iq2Xs` 1.54, `Iq2S` 1.39) or 4 (`Iq3Xxs` 1.41, `Iq3S` 1.25).

use super::layout::{GROUP, GROUPS, PANEL, SUPER, VECTOR};
use crate::{Format, codes};

/// What kernels on codes are made for, one by one. Formats that differ in scales only share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    /// Codes of 3 bits for entries of a table.
    Table3,
    /// Codes of 4 bits for entries of a table.
    Table4,
    /// Codes of 2 bits less a zero point.
    Zero2,
    /// Codes of 3 bits less a zero point.
    Zero3,
    /// Codes of 4 bits less a zero point.
    Zero4,
    /// Codes of 8 bits less a zero point.
    Zero8,
}

/// How a weight comes of its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minimum {
    /// w = scale * (code - bias)
    None,
    /// w = scale * code + minimum
    Added,
    /// w = scale * code - minimum
    Subtracted,
    /// w = scale * (code - bias - minimum)
    Zero,
}

impl Coding {
    /// Bits of a code.
    pub(crate) const fn bits(self) -> usize {
        match self {
            Self::Q2K | Self::Zero2 => 2,
            Self::Q3K | Self::Zero3 | Self::Table3 => 3,
            Self::Q4_0 | Self::Q4_1 | Self::Q4K | Self::Zero4 | Self::Table4 => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5K => 5,
            Self::Q6K => 6,
            Self::Q8_0 | Self::Zero8 => 8,
        }
    }

    /// What a code, or its table's entry, is relative to.
    pub(crate) const fn bias(self) -> i32 {
        match self {
            Self::Q3K => 4,
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            Self::Q8_0 | Self::Zero8 | Self::Table3 | Self::Table4 => 128,
            _ => 0,
        }
    }

    /// Whether codes name entries of a table.
    pub(crate) const fn table(self) -> bool {
        matches!(self, Self::Table3 | Self::Table4)
    }

    /// Whether each half of a group has a scale of its own.
    pub(crate) const fn halves(self) -> bool {
        matches!(self, Self::Q2K | Self::Q3K | Self::Q6K | Self::Table3)
    }

    pub(crate) const fn minimum(self) -> Minimum {
        match self {
            Self::Q4_1 | Self::Q5_1 => Minimum::Added,
            Self::Q2K | Self::Q4K | Self::Q5K => Minimum::Subtracted,
            Self::Zero2 | Self::Zero3 | Self::Zero4 | Self::Zero8 => Minimum::Zero,
            _ => Minimum::None,
        }
    }
}

/// How the scales of a block lie; the head of this file draws it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scaling {
    F16,
    Power,
    Zero,
    Per32,
    Shifted,
    Per16,
    Deltas,
    Minima,
    Nibbles,
}

/// A format's codes and scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Codes {
    pub(crate) coding: Coding,
    pub(crate) scaling: Scaling,
    /// Multiplies the scale.
    pub(crate) factor: f32,
    /// What codes stand for, plus the coding's bias.
    pub(crate) table: [u8; 16],
    /// Groups of a block are two to this.
    block_shift: u32,
    /// Bytes of the scales of a block.
    block_scales: usize,
    /// Bytes of the scales of [`SUPER`] elements of k.
    pub(crate) scale_bytes: usize,
    /// Bytes of a group's codes.
    pub(crate) group_bytes: usize,
}

impl Codes {
    /// Of a format of integer codes.
    pub(crate) fn of(format: Format) -> Self {
        let (coding, scaling, factor) = shape(format);
        let minimum = usize::from(coding.minimum() == Minimum::Added);
        let block_scales = PANEL
            * match scaling {
                Scaling::F16 => 2 + 2 * minimum,
                Scaling::Power => 1,
                Scaling::Zero => 4 + 2,
                Scaling::Per32 | Scaling::Shifted => 2 + 8,
                Scaling::Per16 => 2 + 16,
                Scaling::Deltas => 2 + 16 + 4,
                Scaling::Minima | Scaling::Nibbles => 2 + 2 + 16,
            };
        let bits = if scaling == Scaling::Deltas { 2 } else { coding.bits() };
        Self {
            coding,
            scaling,
            factor,
            table: table(format),
            block_shift: (format.block_len() / GROUP).trailing_zeros(),
            block_scales,
            scale_bytes: SUPER / format.block_len() * block_scales,
            group_bytes: bits * VECTOR,
        }
    }

    /// Bytes of [`SUPER`] elements of k of a panel: scales, then codes.
    #[inline(always)]
    pub(crate) const fn super_bytes(&self) -> usize {
        self.scale_bytes + GROUPS * self.group_bytes
    }

    /// Where in a super-block the scales of its group `group` begin.
    #[inline(always)]
    pub(crate) const fn block_at(&self, group: usize) -> usize {
        (group >> self.block_shift) * self.block_scales
    }

    /// Where in a panel the scales of group `group` begin.
    pub(crate) const fn scales_at(&self, group: usize) -> usize {
        group / GROUPS * self.super_bytes() + self.block_at(group % GROUPS)
    }

    /// Where in a panel the codes of group `group` begin.
    pub(crate) const fn codes_at(&self, group: usize) -> usize {
        (group / GROUPS + 1) * self.scale_bytes + group * self.group_bytes
    }
}

/// Where among the bytes of a block of [`Scaling::Deltas`] the words are.
pub(crate) const DELTAS_AT: usize = (2 + 16) * PANEL;

fn shape(format: Format) -> (Coding, Scaling, f32) {
    let (coding, scaling) = match format {
        Format::Q4_0 => (Coding::Q4_0, Scaling::F16),
        Format::Q4_1 => (Coding::Q4_1, Scaling::F16),
        Format::Q5_0 => (Coding::Q5_0, Scaling::F16),
        Format::Q5_1 => (Coding::Q5_1, Scaling::F16),
        Format::Q8_0 => (Coding::Q8_0, Scaling::F16),
        Format::Q2K => (Coding::Q2K, Scaling::Nibbles),
        Format::Q3K => (Coding::Q3K, Scaling::Per16),
        Format::Q4K => (Coding::Q4K, Scaling::Minima),
        Format::Q5K => (Coding::Q5K, Scaling::Minima),
        Format::Q6K => (Coding::Q6K, Scaling::Per16),
        Format::Iq2Xxs => (Coding::Table3, Scaling::Per32),
        Format::Iq2Xs | Format::Iq2S => (Coding::Table3, Scaling::Per16),
        Format::Iq3Xxs | Format::Iq3S | Format::Iq4Xs => (Coding::Table4, Scaling::Per32),
        Format::Iq1S => (Coding::Zero2, Scaling::Shifted),
        Format::Iq1M => (Coding::Table3, Scaling::Deltas),
        Format::Iq4Nl => (Coding::Table4, Scaling::F16),
        Format::Tq1_0 | Format::Tq2_0 => (Coding::Zero2, Scaling::F16),
        Format::Mxfp4 => (Coding::Table4, Scaling::Power),
        Format::U2(_) => (Coding::Zero2, Scaling::Zero),
        Format::U3(_) => (Coding::Zero3, Scaling::Zero),
        Format::U4(_) => (Coding::Zero4, Scaling::Zero),
        Format::U8(_) => (Coding::Zero8, Scaling::Zero),
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("no codes in {format:?}"),
        Format::F8E4M3(_) | Format::Nf4 | Format::Fp4 => unreachable!("floats in {format:?}"),
    };
    // Sub-scales are 2s + 1 where the format says s + 1/2; IQ1's shift of 1/8 is 1 in its table.
    let factor = match format {
        Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S | Format::Iq1M => 0.125,
        Format::Iq3Xxs => 0.25,
        _ => 1.0,
    };
    (coding, scaling, factor)
}

/// Values plus 128: bytes without sign.
fn table(format: Format) -> [u8; 16] {
    let values = codes::coding(format).and_then(|coding| coding.table).unwrap_or([0.0; 16]);
    values.map(|value| (value as i32 + 128) as u8)
}
