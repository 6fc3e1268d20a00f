//! What is put on a device: weights and the KV cache, and how that can fail.

use crate::format::Format;

/// Setting up failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device cannot hold it.
    #[error("out of memory: {wanted} bytes for {what}")]
    OutOfMemory {
        /// What did not fit.
        what: &'static str,
        /// Its size in bytes.
        wanted: usize,
    },
    /// The device has no kernel for this.
    #[error("not supported on this device: {0}")]
    Unsupported(String),
    /// A matrix part whose bytes do not fit its shape and format.
    #[error("matrix data has {found} bytes, its shape needs {wanted}")]
    MatrixBytes {
        /// Bytes that rows x columns in this format take.
        wanted: usize,
        /// Bytes given.
        found: usize,
    },
    /// The device failed.
    #[error("device error: {0}")]
    Device(String),
}

/// A step failed on the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing was lost; the step can be run again.
    #[error("step failed: {0}")]
    Step(String),
    /// The device's memory is gone and the process must set it up anew.
    #[error("device lost: {0}")]
    Lost(String),
}

/// Arithmetic of the matrix products. Sums are always kept in f32 (or exact integers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Weights widened to f32, activations f32: the numbers that the model's authors define.
    Float32,
    /// Activations rounded to bf16 for products with 16-bit weights; 8-bit integers for products
    /// with quantized weights.
    Bfloat16,
    /// Activations kept in f32 (CPU) or rounded to f16 (CUDA) for products with 16-bit weights;
    /// 8-bit integers for products with quantized weights.
    Float16,
}

/// What a tensor's numbers are for, so that a device can choose their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// Sums that live through the layers, scores, logits, angles: f32.
    Exact,
    /// What products read and give. A device may keep the 16 bits of them that its [`Precision`]
    /// computes with; the CPU keeps f32.
    Rounded,
}

/// Rows of a weight matrix `[rows, cols]`, row-major in one storage format, as files hold them.
#[derive(Debug, Clone, Copy)]
pub struct MatrixPart<'a> {
    /// Element or block format of `bytes`.
    pub format: Format,
    /// Output features.
    pub rows: usize,
    /// Input features: the same for all parts of a matrix, a multiple of the block length.
    pub cols: usize,
    /// `rows * format.row_bytes(cols)` bytes, little endian.
    pub bytes: &'a [u8],
    /// Stored column j multiplies input element `order[j]`: a permutation of `0..cols` (GPTQ's
    /// act-order). `None`: as they come.
    pub order: Option<&'a [u32]>,
}

/// Element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheElement {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    Bf16,
    /// 2 bytes.
    F16,
    /// 1 byte, e4m3fn, as they are (no scale). Not on CPU.
    F8E4M3,
}

impl CacheElement {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::F8E4M3 => 1,
        }
    }
}

/// Where a cache keeps its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheValues {
    /// Beside the keys, as many elements.
    Own,
    /// The first elements of a key are the value: the compressed cache of latent attention.
    InKeys {
        /// Elements of a value, at most those of a key.
        dim: usize,
    },
}

/// Size of a paged KV cache. A page holds the keys and values of [`CacheShape::page_tokens`]
/// positions of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Decoder layers.
    pub layers: usize,
    /// Pages in the pool, shared by all slots.
    pub pages: usize,
    /// Positions in a page; 16.
    pub page_tokens: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a key.
    pub head_dim: usize,
    /// Where values are.
    pub values: CacheValues,
    /// Element type.
    pub element: CacheElement,
    /// Row slots, each with a block table.
    pub slots: usize,
    /// Entries of one block table.
    pub pages_per_slot: usize,
}

impl CacheShape {
    /// Bytes of one page: keys and values of all layers.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        let halves = match self.values {
            CacheValues::Own => 2,
            CacheValues::InKeys { .. } => 1,
        };
        halves
            * self.layers
            * self.page_tokens
            * self.kv_heads
            * self.head_dim
            * self.element.bytes()
    }

    /// Elements of a value.
    #[must_use]
    pub fn value_dim(&self) -> usize {
        match self.values {
            CacheValues::Own => self.head_dim,
            CacheValues::InKeys { dim } => dim,
        }
    }
}
