//! A part of a matrix, and what happens to its sums, as kernels take them: the twins of
//! `struct Weight` in `ops/weights.cuh` and `struct Finish` in `ops/dense.cuh`.

use bytemuck::{Pod, Zeroable};

use super::Finish;
use crate::gpu::Address;
use crate::matrix::{Codes, Layout, Offset, Part};
use crate::tensor::Vector;

/// A part.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct WeightArg {
    pub(crate) data: Address,
    pub(crate) scales: Address,
    pub(crate) table: Address,
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    /// Column of the result that row 0 writes.
    pub(crate) first: u32,
    /// Power of two of elements of k that share a scale.
    pub(crate) shift: u32,
    pub(crate) bias: f32,
    pub(crate) factor: f32,
    pub(crate) offset: u32,
    pub(crate) pad: u32,
}

/// A shift by which every column comes to 0.
const ALL: u32 = 31;

impl WeightArg {
    /// Of a part of a matrix of `cols` columns.
    pub(crate) fn of(part: &Part, cols: usize) -> Self {
        let plain = Self {
            data: part.data,
            scales: part.scales,
            table: part.table,
            rows: part.rows as u32,
            cols: cols as u32,
            first: part.first as u32,
            shift: ALL,
            bias: 0.0,
            factor: 1.0,
            offset: 0,
            pad: 0,
        };
        match part.layout {
            Layout::Plain(_) => plain,
            Layout::F8 { block } if block == cols => plain,
            Layout::F8 { block } => Self { shift: block.ilog2(), ..plain },
            Layout::Codes(Codes { group, offset, bias, factor, .. }) => {
                let offset = match offset {
                    Offset::None => 0,
                    Offset::Zero => 1,
                    Offset::Minimum => 2,
                };
                Self { shift: group.ilog2(), bias, factor, offset, ..plain }
            }
        }
    }
}

/// What happens to a sum before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct FinishArg {
    bias: Address,
    scale: f32,
    soft_cap: f32,
}

impl FinishArg {
    /// Nothing.
    pub(crate) const NONE: Self = Self { bias: 0, scale: 1.0, soft_cap: 0.0 };

    pub(crate) fn new(bias: Option<&Vector>, finish: Finish) -> Self {
        Self {
            bias: bias.map_or(0, |bias| bias.address),
            scale: finish.scale,
            soft_cap: finish.soft_cap.unwrap_or(0.0),
        }
    }
}
