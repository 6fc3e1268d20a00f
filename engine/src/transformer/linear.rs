//! [`Linear`]: a projection of all rows, with the low-rank adapters that stand beside it.
//!
//! Projections that read the same input are one matrix; adapters are trained on the parts, so
//! each part keeps its own.

use kernels::Compute;

use crate::adapter::{Adapter, AdapterError};
use crate::spec::LayerPart;

/// A projection: `matrix * x + bias`, plus what the row's adapter adds.
pub(super) struct Linear<C: Compute> {
    pub(super) matrix: C::Matrix,
    pub(super) bias: Option<C::Vector>,
    pub(super) patches: Vec<Patch<C>>,
}

/// One part of a projection, and its adapters.
pub(super) struct Patch<C: Compute> {
    pub(super) part: LayerPart,
    /// First output of the part.
    pub(super) first: usize,
    /// Shape of the part.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// By adapter number, from 1. Empty until the first adapter comes.
    pub(super) pairs: Vec<Option<C::LowRank>>,
}

impl<C: Compute> Linear<C> {
    pub(super) fn apply(&self, compute: &mut C, x: &C::Tensor, out: &mut C::Tensor) {
        compute.matmul(x, &self.matrix, self.bias.as_ref(), out);
        for patch in self.patches.iter().filter(|patch| !patch.pairs.is_empty()) {
            compute.adapt(x, &patch.pairs, patch.first, out);
        }
    }

    pub(super) fn bytes(&self, compute: &C) -> usize {
        compute.matrix_bytes(&self.matrix)
    }

    /// Puts the adapter's share of this projection on the device.
    pub(super) fn patch(
        &mut self,
        compute: &mut C,
        number: u32,
        adapter: &Adapter,
        layer: usize,
    ) -> Result<(), AdapterError> {
        let at = number as usize - 1;
        for patch in &mut self.patches {
            let Some(pair) = adapter.pair(layer, patch.part) else { continue };
            pair.check(layer, patch.part, patch.rows, patch.cols)?;
            let loaded = compute.load_low_rank(pair.down(), pair.up(), pair.rank(), pair.scale());
            let loaded = loaded.map_err(AdapterError::Device)?;
            if patch.pairs.len() <= at {
                patch.pairs.resize_with(at + 1, || None);
            }
            patch.pairs[at] = Some(loaded);
        }
        Ok(())
    }

    /// Lets an adapter's share go.
    pub(super) fn unpatch(&mut self, number: u32) {
        for patch in &mut self.patches {
            if let Some(pair) = patch.pairs.get_mut(number as usize - 1) {
                *pair = None;
            }
            while patch.pairs.last().is_some_and(Option::is_none) {
                patch.pairs.pop();
            }
        }
    }
}
