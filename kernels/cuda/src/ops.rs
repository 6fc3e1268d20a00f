//! The ops: one file each for the struct that its kernels take and for how they are launched.

use kernels::Error;

use crate::gpu::{Address, Gpu, Kernel, KernelName, Shape};

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod cache;
pub(crate) mod expand;
pub(crate) mod experts;
pub(crate) mod gather;
pub(crate) mod low_rank;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod project;
pub(crate) mod rope;
pub(crate) mod sample;

/// Finds a kernel that takes `A`.
pub(crate) fn kernel<A, G: Gpu>(
    gpu: &mut G,
    file: &'static str,
    name: &'static str,
) -> Result<Kernel, Error> {
    gpu.kernel(KernelName { file, name }, size_of::<A>())
}

/// Blocks along x of so many threads, no dynamic shared memory.
pub(crate) fn blocks(blocks: usize, threads: u32) -> Shape {
    Shape { grid: [blocks as u32, 1, 1], threads, shared_bytes: 0 }
}

/// The rows of the step that is being recorded. Addresses are of lists `[rows]` of u32; rows
/// beyond the real ones have no slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// Rows that kernels are launched for: the real ones rounded up by [`crate::step::bucket`].
    pub(crate) rows: usize,
    /// Where the number of real rows is.
    pub(crate) count: Address,
    /// Input ids; [`LATE`] stands for the token that the slot drew last.
    pub(crate) tokens: Address,
    /// Positions.
    pub(crate) positions: Address,
    /// Slots; [`NONE`] for a row that is not real.
    pub(crate) slots: Address,
    /// Tokens of the sequence that a row counts as part of: its prompt, or all up to itself.
    pub(crate) sequences: Address,
    /// Adapters, from 1; 0 is none.
    pub(crate) adapters: Address,
}

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// A token that only the device knows.
pub(crate) const LATE: u32 = u32::MAX;
