//! Masks on their way to the device: which tokens the rows of a step may draw.
//!
//! They are not part of a step's payload: that is laid out in rounded sizes, and a mask of 150,000
//! tokens takes 19 kB whether a step has one or none. So they have a place of their own, filled
//! from the start, and a row says which of them is its own. Nothing a step records depends on it.

use kernels::{Error, mask_words};

use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Pinned};

/// Bytes of a turn: a mask for each slot, as a slot draws once a step.
pub(super) fn bytes(config: &CudaConfig) -> usize {
    (4 * mask_words(config.vocab) * config.slots).next_multiple_of(256)
}

/// Masks of one turn.
pub(super) struct Masks {
    device: Address,
    pinned: Pinned,
    words: usize,
    used: usize,
}

impl Masks {
    /// Masks that are at `device` while their step runs.
    pub(super) fn new<G: Gpu>(
        gpu: &mut G,
        config: &CudaConfig,
        device: Address,
    ) -> Result<Self, Error> {
        let pinned = gpu.pinned(bytes(config))?;
        Ok(Self { device, pinned, words: mask_words(config.vocab), used: 0 })
    }

    /// Starts anew. Nothing queued may still read the buffer.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn device(&self) -> Address {
        self.device
    }

    /// Words of one.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Takes mask `row` of `masks` in; its row on the device.
    pub(super) fn push(&mut self, masks: &[u32], row: u32) -> u32 {
        let words = self.words;
        let mask = &masks[row as usize * words..][..words];
        let all: &mut [u32] = bytemuck::cast_slice_mut(self.pinned.bytes_mut());
        all[self.used * words..][..words].copy_from_slice(mask);
        self.used += 1;
        self.used as u32 - 1
    }

    /// Queues the copy to the device.
    pub(super) fn upload<G: Gpu>(&self, gpu: &mut G) {
        if self.used > 0 {
            gpu.upload(&self.pinned, 0, 4 * self.used * self.words, self.device);
        }
    }
}
