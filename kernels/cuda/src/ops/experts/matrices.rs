//! The matrices of a layer's experts, as one table on the device. It must not know what rows are
//! multiplied with them.

use bytemuck::{Pod, Zeroable};
use kernels::Error;

use crate::gpu::{Address, Gpu};
use crate::matrix::{Codes, Layout, Matrix, Offset, Part};
use crate::tensor::Kind;
use crate::upload::Upload;

/// The matrices of a layer's experts, all `[out, in]`.
#[derive(Debug)]
pub struct Experts {
    /// They hold the memory.
    pub(super) matrices: Vec<Matrix>,
    /// Rows that lie alike in all experts.
    pub(super) parts: Vec<ExpertsPart>,
    bytes: usize,
}

/// A part of every expert's matrix.
#[derive(Debug)]
pub(super) struct ExpertsPart {
    /// The first expert's; of its layout what [`Alike`] says is everybody's.
    pub(super) part: Part,
    /// What all experts' parts have in common.
    pub(super) alike: Alike,
    /// [`Entry`] of each expert.
    pub(super) table: Address,
    /// Whether columns of some expert are in an order.
    pub(super) ordered: bool,
    /// Elements of k that share a scale in every expert.
    pub(super) group: usize,
}

/// What decides which kernel multiplies a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Alike {
    Plain(Kind),
    F8,
    Codes { bits: usize, minimum: bool, table: Option<[f32; 16]> },
}

impl Alike {
    fn of(layout: &Layout) -> Self {
        match *layout {
            Layout::Plain(kind) => Self::Plain(kind),
            Layout::F8 { .. } => Self::F8,
            Layout::Codes(Codes { bits, offset, table, .. }) => {
                Self::Codes { bits, minimum: offset == Offset::Minimum, table }
            }
        }
    }
}

/// What may differ between experts: `struct Expert` of the kernels. Loading looks at each matrix
/// by itself, and finds one zero point or one scale a row in some only.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    data: Address,
    scales: Address,
    order: Address,
    factor: f32,
    bias: f32,
    shift: u32,
    offset: u32,
}

impl Experts {
    /// # Errors
    /// Parts that do not lie alike in all experts, or no memory.
    ///
    /// # Panics
    /// No matrix, or matrices of several shapes: a bug in the caller.
    pub(crate) fn new<G: Gpu>(
        gpu: &mut G,
        upload: &mut Upload,
        matrices: Vec<Matrix>,
    ) -> Result<Self, Error> {
        let first = matrices.first().expect("at least one expert");
        let shape = (first.rows, first.cols);
        assert!(matrices.iter().all(|m| (m.rows, m.cols) == shape), "experts of one shape");
        for (expert, matrix) in matrices.iter().enumerate() {
            check(&first.parts, &matrix.parts, expert)?;
        }
        let room = matrices.len() * size_of::<Entry>();
        let bytes = first.parts.len() * room;
        let address = gpu.claim("a table of experts", bytes)?;
        let entries: Vec<Entry> = (0..first.parts.len())
            .flat_map(|i| matrices.iter().map(move |m| entry(&m.parts[i], m.cols)))
            .collect();
        let all: &[u8] = bytemuck::cast_slice(&entries);
        upload.send(gpu, address, (bytes, size_of::<Entry>()), |from, part| {
            part.copy_from_slice(&all[from..from + part.len()]);
        })?;
        upload.finish(gpu)?;
        let parts = first.parts.iter().enumerate().map(|(i, part)| ExpertsPart {
            part: part.clone(),
            table: address + (i * room) as Address,
            alike: Alike::of(&part.layout),
            ordered: matrices.iter().any(|matrix| matrix.parts[i].order != 0),
            group: matrices.iter().map(|m| group(&m.parts[i].layout)).min().unwrap_or(0),
        });
        let parts = parts.collect();
        let bytes = bytes + matrices.iter().map(Matrix::bytes).sum::<usize>();
        Ok(Self { matrices, parts, bytes })
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        self.matrices[0].rows
    }

    /// Input features.
    pub(super) fn cols(&self) -> usize {
        self.matrices[0].cols
    }

    /// Device memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Columns that share a scale.
fn group(layout: &Layout) -> usize {
    match *layout {
        Layout::Plain(_) => 0,
        Layout::F8 { block } => block,
        Layout::Codes(Codes { group, .. }) => group,
    }
}

fn entry(part: &Part, cols: usize) -> Entry {
    let (factor, bias, offset) = match part.layout {
        Layout::Plain(_) | Layout::F8 { .. } => (1.0, 0.0, Offset::None),
        Layout::Codes(Codes { factor, bias, offset, .. }) => (factor, bias, offset),
    };
    let offset = match offset {
        Offset::None => 0,
        Offset::Zero => 1,
        Offset::Minimum => 2,
    };
    let group = group(&part.layout);
    // By 31 every column is in group 0.
    let one = group >= cols && matches!(part.layout, Layout::F8 { .. });
    let shift = if one { 31 } else { group.max(1).ilog2() };
    let Part { data, scales, order, .. } = *part;
    Entry { data, scales, order, factor, bias, shift, offset }
}

/// One kernel multiplies all experts: they must lie alike.
fn check(first: &[Part], other: &[Part], expert: usize) -> Result<(), Error> {
    let place = |part: &Part| (part.first, part.rows, Alike::of(&part.layout));
    if first.iter().map(place).eq(other.iter().map(place)) {
        return Ok(());
    }
    let name = |parts: &[Part]| {
        let parts: Vec<_> = parts.iter().map(|part| (part.rows, Alike::of(&part.layout))).collect();
        format!("{parts:?}")
    };
    Err(Error::Unsupported(format!(
        "experts in several formats: the first has rows of {}, number {expert} of {}",
        name(first),
        name(other)
    )))
}
