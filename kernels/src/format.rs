//! Storage formats of weights: single elements, and GGUF's blocks of quantized values.
//!
//! Source of the block layouts: the GGML block definitions that the GGUF format refers to.

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
}

impl Format {
    /// Elements in a block; 1 for plain element types.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `cols` elements.
    ///
    /// # Panics
    /// `cols` is not a multiple of the block length.
    #[must_use]
    pub fn row_bytes(self, cols: usize) -> usize {
        assert_eq!(cols % self.block_len(), 0, "row length {cols} for {self:?}");
        cols / self.block_len() * self.block_bytes()
    }

    /// Whether values are codes with scales rather than numbers.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }
}
