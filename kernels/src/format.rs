//! Storage formats of weights: single elements, GGUF's blocks of quantized values, and blocks of
//! our own into which a loader brings the quantized containers of Hugging Face.
//!
//! Sources: the GGML block definitions that the GGUF format refers to; for numbers of 8 and 4
//! bits the OCP specifications of FP8 and of the microscaling formats; for NF4 and FP4 the tables
//! that bitsandbytes publishes. `reference::dequant` writes each of them down as numbers.
//!
//! # Our own blocks
//!
//! A row is blocks one after the other, a matrix rows one after the other. All is little endian.
//! A block's length is [`Group`], where a container's groups are longer (a scale per row or per
//! tensor) the loader repeats the scale; the last group of a row must be whole.
//!
//! ```text
//! U2 U3 U4 U8   f32 scale; u16 zero; u16 that is 0; then codes without sign, element i at bits
//!               B*i..B*(i+1) of the bytes that follow, lowest bit of the first byte first (32
//!               elements of 3 bits are 12 bytes). w = scale * (code - zero). zero is any u16: a
//!               zero of GPTQ's first layout reaches 2^B, which for 8 bits is 256.
//! F8E4M3        f32 scale; then a byte an element, e4m3fn: sign, 4 bits of exponent with bias 7,
//!               3 of fraction, no infinity, 0x7f and 0xff NaN. w = scale * e4m3.
//! Nf4 Fp4       f32 absmax; then 32 bytes, element 2i in the high half of byte i, 2i + 1 in the
//!               low. w = absmax * table[code]. A container's longer blocks repeat absmax.
//! ```

pub(crate) mod grids;

/// How a weight matrix lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// 4 bytes an element.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Blocks of 32: f16 scale, 4-bit codes minus 8.
    Q4_0,
    /// Blocks of 32: f16 scale and minimum, 4-bit codes.
    Q4_1,
    /// Blocks of 32: f16 scale, 5-bit codes minus 16.
    Q5_0,
    /// Blocks of 32: f16 scale and minimum, 5-bit codes.
    Q5_1,
    /// Blocks of 32: f16 scale, 8-bit signed values.
    Q8_0,
    /// Super-blocks of 256: 2-bit codes, 4-bit scales and minima per 16.
    Q2K,
    /// Super-blocks of 256: 3-bit codes, 6-bit scales per 16.
    Q3K,
    /// Super-blocks of 256: 4-bit codes, 6-bit scales and minima per 32.
    Q4K,
    /// Super-blocks of 256: 5-bit codes, 6-bit scales and minima per 32.
    Q5K,
    /// Super-blocks of 256: 6-bit codes, 8-bit scales per 16.
    Q6K,
    /// Super-blocks of 256: eights out of a grid of 256 with signs, 4-bit scales per 32.
    Iq2Xxs,
    /// Super-blocks of 256: eights out of a grid of 512 with signs, 4-bit scales per 16.
    Iq2Xs,
    /// Super-blocks of 256: eights out of a grid of 1024 with signs, 4-bit scales per 16.
    Iq2S,
    /// Super-blocks of 256: fours out of a grid of 256 with signs, 4-bit scales per 32.
    Iq3Xxs,
    /// Super-blocks of 256: fours out of a grid of 512 with signs, 4-bit scales per 32.
    Iq3S,
    /// Super-blocks of 256: ternary eights out of a grid of 2048, 3-bit scales and shifts per 32.
    Iq1S,
    /// Super-blocks of 256: the same grid, 3-bit scales per 16, shifts per 8.
    Iq1M,
    /// Blocks of 32: f16 scale, 4-bit codes of a table.
    Iq4Nl,
    /// Super-blocks of 256: the same table, 6-bit scales per 32.
    Iq4Xs,
    /// Super-blocks of 256: f16 scale, five ternary digits to a byte.
    Tq1_0,
    /// Super-blocks of 256: f16 scale, 2-bit ternary digits.
    Tq2_0,
    /// Blocks of 32: a power of two as scale, then 16 bytes of 4-bit floats (e2m1); low halves
    /// are elements 0..16.
    Mxfp4,
    /// 2-bit codes with f32 scale and zero point per group.
    U2(Group),
    /// 3-bit codes with f32 scale and zero point per group.
    U3(Group),
    /// 4-bit codes with f32 scale and zero point per group.
    U4(Group),
    /// 8-bit codes with f32 scale and zero point per group.
    U8(Group),
    /// 8-bit floats with an f32 scale per group.
    F8E4M3(Group),
    /// Blocks of 64: f32 absolute maximum, 4-bit codes of quantiles of the normal distribution.
    Nf4,
    /// Blocks of 64: f32 absolute maximum, 4-bit codes of bitsandbytes' floats.
    Fp4,
}

/// Elements that share a scale, in the blocks of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// 32 elements.
    G32,
    /// 64 elements.
    G64,
    /// 128 elements.
    G128,
}

impl Group {
    /// All sizes, shortest first.
    pub const ALL: [Self; 3] = [Self::G32, Self::G64, Self::G128];

    /// Elements.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::G32 => 32,
            Self::G64 => 64,
            Self::G128 => 128,
        }
    }

    /// Never: a group has elements.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }
}

impl Format {
    /// Every format, plain ones first.
    pub const ALL: [Self; 42] = {
        use Group::{G32, G64, G128};
        [
            Self::F32,
            Self::F16,
            Self::Bf16,
            Self::Q4_0,
            Self::Q4_1,
            Self::Q5_0,
            Self::Q5_1,
            Self::Q8_0,
            Self::Q2K,
            Self::Q3K,
            Self::Q4K,
            Self::Q5K,
            Self::Q6K,
            Self::Iq2Xxs,
            Self::Iq2Xs,
            Self::Iq2S,
            Self::Iq3Xxs,
            Self::Iq3S,
            Self::Iq1S,
            Self::Iq1M,
            Self::Iq4Nl,
            Self::Iq4Xs,
            Self::Tq1_0,
            Self::Tq2_0,
            Self::Mxfp4,
            Self::U2(G32),
            Self::U2(G64),
            Self::U2(G128),
            Self::U3(G32),
            Self::U3(G64),
            Self::U3(G128),
            Self::U4(G32),
            Self::U4(G64),
            Self::U4(G128),
            Self::U8(G32),
            Self::U8(G64),
            Self::U8(G128),
            Self::F8E4M3(G32),
            Self::F8E4M3(G64),
            Self::F8E4M3(G128),
            Self::Nf4,
            Self::Fp4,
        ]
    };

    /// Elements in a block; 1 for plain element types.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Iq4Nl | Self::Mxfp4 => 32,
            Self::Nf4 | Self::Fp4 => 64,
            Self::U2(g) | Self::U3(g) | Self::U4(g) | Self::U8(g) | Self::F8E4M3(g) => g.len(),
            _ => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K | Self::Iq3S => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Iq2Xxs | Self::Tq2_0 => 66,
            Self::Iq2Xs => 74,
            Self::Iq2S => 82,
            Self::Iq3Xxs => 98,
            Self::Iq1S => 50,
            Self::Iq1M => 56,
            Self::Iq4Xs => 136,
            Self::Tq1_0 => 54,
            Self::Mxfp4 => 17,
            Self::U2(g) => 8 + g.len() / 8 * 2,
            Self::U3(g) => 8 + g.len() / 8 * 3,
            Self::U4(g) => 8 + g.len() / 8 * 4,
            Self::U8(g) => 8 + g.len(),
            Self::F8E4M3(g) => 4 + g.len(),
            Self::Nf4 | Self::Fp4 => 36,
        }
    }

    /// Bytes of a row of `cols` elements.
    ///
    /// # Panics
    /// `cols` is not a multiple of the block length.
    #[must_use]
    pub fn row_bytes(self, cols: usize) -> usize {
        assert_eq!(cols % self.block_len(), 0, "row length {cols} for {}", self.name());
        cols / self.block_len() * self.block_bytes()
    }

    /// Whether values are codes with scales rather than numbers.
    #[must_use]
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// A word for people and files: the format's usual name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use Group::{G32, G64, G128};
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Iq2Xxs => "iq2_xxs",
            Self::Iq2Xs => "iq2_xs",
            Self::Iq2S => "iq2_s",
            Self::Iq3Xxs => "iq3_xxs",
            Self::Iq3S => "iq3_s",
            Self::Iq1S => "iq1_s",
            Self::Iq1M => "iq1_m",
            Self::Iq4Nl => "iq4_nl",
            Self::Iq4Xs => "iq4_xs",
            Self::Tq1_0 => "tq1_0",
            Self::Tq2_0 => "tq2_0",
            Self::Mxfp4 => "mxfp4",
            Self::U2(G32) => "u2g32",
            Self::U2(G64) => "u2g64",
            Self::U2(G128) => "u2g128",
            Self::U3(G32) => "u3g32",
            Self::U3(G64) => "u3g64",
            Self::U3(G128) => "u3g128",
            Self::U4(G32) => "u4g32",
            Self::U4(G64) => "u4g64",
            Self::U4(G128) => "u4g128",
            Self::U8(G32) => "u8g32",
            Self::U8(G64) => "u8g64",
            Self::U8(G128) => "u8g128",
            // How often the scale is repeated is our own affair.
            Self::F8E4M3(_) => "f8_e4m3",
            Self::Nf4 => "nf4",
            Self::Fp4 => "fp4",
        }
    }
}
