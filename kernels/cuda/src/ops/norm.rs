//! Norms and additions: `ops/norm.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::{Error, Norm, NormKind};

use super::{blocks, kernel};
use crate::gpu::{Address, Gpu, Kernel};
use crate::record::Record;
use crate::tensor::{Tensor, TensorArg, Vector};

const FILE: &str = "norm.cu";
const THREADS: u32 = 256;

/// The kernels.
pub(crate) struct Norms {
    norm: Kernel,
    add: Kernel,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct NormArgs {
    x: TensorArg,
    delta: TensorArg,
    out: TensorArg,
    weight: Address,
    bias: Address,
    scale: f32,
    eps: f32,
    centered: u32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AddArgs {
    x: TensorArg,
    delta: TensorArg,
    count: u64,
    scale: f32,
    pad: u32,
}

impl Norms {
    pub(crate) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        let norm = kernel::<NormArgs, G>(gpu, FILE, "row_norm")?;
        let add = kernel::<AddArgs, G>(gpu, FILE, "row_add")?;
        Ok(Self { norm, add })
    }

    /// `x += scale * delta` where there is a delta; `out = norm(x)`.
    pub(crate) fn norm(
        &self,
        record: &mut Record,
        rows: usize,
        x: &Tensor,
        delta: Option<(&Tensor, f32)>,
        how: &Norm<'_, Vector>,
        out: &Tensor,
    ) {
        let width = how.weight.len;
        let (delta, scale) = match delta {
            Some((delta, scale)) => (delta.of(rows, width).arg(), scale),
            None => (TensorArg::NONE, 0.0),
        };
        let args = NormArgs {
            x: x.of(rows, width).arg(),
            delta,
            out: out.of(rows, width).arg(),
            weight: how.weight.address,
            bias: how.bias.map_or(0, |bias| bias.address),
            scale,
            eps: how.eps,
            centered: u32::from(how.kind == NormKind::Layer),
            pad: 0,
        };
        record.launch(self.norm, blocks(rows, THREADS), &args);
    }

    /// `x += scale * delta`.
    pub(crate) fn add(
        &self,
        record: &mut Record,
        rows: usize,
        x: &Tensor,
        delta: &Tensor,
        scale: f32,
    ) {
        let count = rows * x.width;
        let args = AddArgs {
            x: x.of(rows, x.width).arg(),
            delta: delta.of(rows, x.width).arg(),
            count: count as u64,
            scale,
            pad: 0,
        };
        record.launch(self.add, blocks(count.div_ceil(THREADS as usize), THREADS), &args);
    }
}
