//! Low-rank adapters: what a fine-tune adds to some of a model's matrices.
//!
//! Knows layers and their parts, not how a file spells them (that is `adapter::peft`) and not
//! which requests use an adapter.

use std::collections::BTreeMap;
use std::path::Path;

use crate::families::Names;
use crate::spec::{LayerPart, ModelSpec};
use crate::weights::LoadError;

mod peft;

/// An adapter cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Its files are damaged, or ask for something that is not supported.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It was made for a model of other shapes.
    #[error(
        "the adapter is for another base model: layer {layer}, {part:?}: \
         it is {found_rows} x {found_cols}, the model's is {rows} x {cols}"
    )]
    Shape {
        /// Where.
        layer: usize,
        /// Which projection.
        part: LayerPart,
        /// Outputs of the adapter's pair.
        found_rows: usize,
        /// Inputs of the adapter's pair.
        found_cols: usize,
        /// Outputs of the model's projection.
        rows: usize,
        /// Inputs of the model's projection.
        cols: usize,
    },
    /// The device cannot hold it.
    #[error("the device cannot take the adapter: {0}")]
    Device(kernels::Error),
}

/// An adapter, read and checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adapter {
    pairs: BTreeMap<(usize, LayerPart), Pair>,
}

/// `scale * up * (down * x)` is added to a projection's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// `[rank, cols]`.
    down: Vec<f32>,
    /// `[rows, rank]`.
    up: Vec<f32>,
    rank: usize,
    scale: f32,
}

/// What an adapter has to fit: a base model and the names of its checkpoint.
#[derive(Debug, Clone)]
pub struct AdapterBase {
    spec: ModelSpec,
    names: Names,
}

impl AdapterBase {
    pub(crate) fn new(spec: ModelSpec, names: Names) -> Self {
        Self { spec, names }
    }

    /// Reads the adapter in `folder`, as PEFT saves it.
    ///
    /// # Errors
    /// Files are missing or damaged, ask for something that is not computed here, or change parts
    /// that the base model does not have.
    pub fn open(&self, folder: &Path) -> Result<Adapter, LoadError> {
        peft::open(folder, &self.spec, self.names)
    }
}

impl Adapter {
    /// What it adds to a projection.
    #[must_use]
    pub fn pair(&self, layer: usize, part: LayerPart) -> Option<&Pair> {
        self.pairs.get(&(layer, part))
    }

    /// Every projection that it changes.
    pub fn parts(&self) -> impl Iterator<Item = (usize, LayerPart)> {
        self.pairs.keys().copied()
    }

    /// Bytes that it takes on a device.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pairs.values().map(|pair| 4 * (pair.down.len() + pair.up.len()) as u64).sum()
    }
}

impl Pair {
    /// `[rank, cols]`, row-major.
    #[must_use]
    pub fn down(&self) -> &[f32] {
        &self.down
    }

    /// `[rows, rank]`, row-major.
    #[must_use]
    pub fn up(&self) -> &[f32] {
        &self.up
    }

    /// Inner dimension.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Multiplies the product.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Refuses a pair that does not fit a projection of `rows` x `cols`.
    pub(crate) fn check(
        &self,
        layer: usize,
        part: LayerPart,
        rows: usize,
        cols: usize,
    ) -> Result<(), AdapterError> {
        let (found_rows, found_cols) = (self.up.len() / self.rank, self.down.len() / self.rank);
        if (found_rows, found_cols) == (rows, cols) {
            return Ok(());
        }
        Err(AdapterError::Shape { layer, part, found_rows, found_cols, rows, cols })
    }
}
