//! What lies on the device: activations, vectors, and scratch that ops share.

use bytemuck::{Pod, Zeroable};
use kernels::{Error, Kept, Precision};

use crate::gpu::{Address, Element, Gpu};

/// Element type of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// 4 bytes.
    F32 = 0,
    /// 2 bytes.
    Bf16 = 1,
    /// 2 bytes.
    F16 = 2,
}

impl Kind {
    /// Of a tensor of these numbers.
    #[must_use]
    pub fn of(kept: Kept, precision: Precision) -> Self {
        match (kept, precision) {
            (Kept::Exact, _) | (_, Precision::Float32) => Self::F32,
            (Kept::Rounded, Precision::Bfloat16) => Self::Bf16,
            (Kept::Rounded, Precision::Float16) => Self::F16,
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// As operands of products.
    pub(crate) const fn element(self) -> Element {
        match self {
            Self::F32 => Element::F32,
            Self::Bf16 => Element::Bf16,
            Self::F16 => Element::F16,
        }
    }
}

/// Activations `[rows, width]`, row-major without gaps.
#[derive(Debug)]
pub struct Tensor {
    pub(crate) address: Address,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) kind: Kind,
}

/// A tensor as kernels take it: `struct Tensor` of device.cuh.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TensorArg {
    pub(crate) address: Address,
    pub(crate) width: u32,
    pub(crate) kind: u32,
}

impl TensorArg {
    /// No tensor.
    pub(crate) const NONE: Self = Self { address: 0, width: 0, kind: 0 };
}

impl Tensor {
    /// As kernels take it.
    pub(crate) fn arg(&self) -> TensorArg {
        TensorArg { address: self.address, width: self.width as u32, kind: self.kind as u32 }
    }

    /// Bytes of `rows` rows.
    pub(crate) fn bytes(&self, rows: usize) -> usize {
        rows * self.width * self.kind.bytes()
    }

    /// The tensor, whose room for `rows` rows of `width` is checked.
    pub(crate) fn of(&self, rows: usize, width: usize) -> &Self {
        assert_eq!(self.width, width, "tensor width");
        assert!(rows <= self.rows, "{rows} rows of a tensor of {}", self.rows);
        self
    }
}

/// f32 weights of one dimension.
#[derive(Debug)]
pub struct Vector {
    pub(crate) address: Address,
    pub(crate) len: usize,
}

/// Memory that ops use within one call: everything in it is lost with the next op.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) address: Address,
    pub(crate) bytes: usize,
}

impl Scratch {
    pub(crate) fn claim<G: Gpu>(
        gpu: &mut G,
        what: &'static str,
        bytes: usize,
    ) -> Result<Self, Error> {
        let bytes = bytes.next_multiple_of(256).max(256);
        Ok(Self { address: gpu.claim(what, bytes)?, bytes })
    }

    /// Its first `bytes` bytes.
    pub(crate) fn first(&self, bytes: usize) -> Address {
        assert!(bytes <= self.bytes, "{bytes} bytes of scratch, {} claimed", self.bytes);
        self.address
    }
}
