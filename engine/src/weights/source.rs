//! [`Source`]: where in a file the tensor of a role lies.
//!
//! Families name their tensors; many keep several roles in one tensor (fused projections, stacked
//! experts). A source says which rows of which tensor a role is; it does not know the tensor's
//! element type, nor how a quantized container splits it into several stored tensors.

/// Where the tensor of a role lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The tensor's name, `.weight` or `.bias` included where the file has it.
    pub name: String,
    /// Index into a leading dimension, for stacked experts: the dimension's length and the index.
    pub slab: Option<Slab>,
    /// Which of its rows (or, for vectors, elements).
    pub pick: Pick,
    /// It is stored `[in, out]`, not `[out, in]` (stacked experts of gpt-oss).
    pub transposed: bool,
}

/// One of several matrices stacked in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slab {
    /// How many there are.
    pub of: usize,
    /// Which one.
    pub index: usize,
}

/// Rows of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// All of them.
    All,
    /// A run of rows, from `first` on, of a tensor of `of` rows.
    Run {
        /// First row.
        first: usize,
        /// Rows of the tensor.
        of: usize,
    },
    /// The rows of a tensor come in `count` equal runs of `stride` (one per head); of each, the
    /// rows from `first` on.
    OfEach {
        /// Runs.
        count: usize,
        /// Rows of a run.
        stride: usize,
        /// First row in each run.
        first: usize,
    },
    /// Every other row, from `first` (0 or 1) on.
    EveryOther {
        /// First row.
        first: usize,
    },
}

impl Source {
    /// A whole tensor.
    #[must_use]
    pub fn all(name: impl Into<String>) -> Self {
        Self { name: name.into(), slab: None, pick: Pick::All, transposed: false }
    }

    /// A run of rows of a tensor.
    #[must_use]
    pub fn run(name: impl Into<String>, first: usize, of: usize) -> Self {
        Self { pick: Pick::Run { first, of }, ..Self::all(name) }
    }

    /// One matrix of a stack.
    #[must_use]
    pub fn slab(name: impl Into<String>, index: usize, of: usize) -> Self {
        Self { slab: Some(Slab { of, index }), ..Self::all(name) }
    }

    /// How many rows the tensor (or each matrix of a stack) has, when `rows` of them are wanted.
    #[must_use]
    pub fn rows_of(&self, rows: usize) -> usize {
        match self.pick {
            Pick::All => rows,
            Pick::Run { of, .. } => of,
            Pick::OfEach { count, stride, .. } => count * stride,
            Pick::EveryOther { .. } => 2 * rows,
        }
    }
}
