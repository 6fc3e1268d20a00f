//! What a step needs from the host, laid out in one pinned buffer that goes up in one copy, and
//! how rows are rounded up so that steps of about the same size are launched alike.
//!
//! Every list has room for a rounded number of entries, so a step of the same buckets has all its
//! lists at the same addresses: that is what lets it be replayed as a graph. It must not know
//! what the lists mean.

use bytemuck::Pod;

use crate::gpu::{Address, Gpu, Pinned};

/// Rows for which a step is launched: small numbers as they are, larger ones rounded up so that
/// there are few sizes. Rows beyond the real ones are computed and thrown away.
pub(crate) fn bucket(rows: usize) -> usize {
    match rows {
        0..=8 => rows,
        9..=64 => rows.next_multiple_of(8),
        65..=256 => rows.next_multiple_of(16),
        257..=1024 => rows.next_multiple_of(64),
        _ => rows.next_multiple_of(128),
    }
}

/// Alignment of lists: a kernel may read them 16 bytes at a time.
const ALIGN: usize = 16;

/// A buffer that is being filled, and where its bytes will be on the device.
pub(crate) struct Payload {
    pinned: Pinned,
    device: Address,
    used: usize,
    /// Bytes whose copy is queued already.
    sent: usize,
}

impl Payload {
    pub(crate) fn new(pinned: Pinned, device: Address) -> Self {
        Self { pinned, device, used: 0, sent: 0 }
    }

    /// Starts anew. Nothing queued may still read the buffer.
    pub(crate) fn clear(&mut self) {
        (self.used, self.sent) = (0, 0);
    }

    /// Bytes filled.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes that still fit, alignment aside.
    pub(crate) fn room(&self) -> usize {
        self.pinned.bytes().len() - self.used
    }

    /// Queues the copy of what was filled since [`Payload::sent`].
    pub(crate) fn send(&self, gpu: &mut impl Gpu) {
        let Self { pinned, device, used, sent } = self;
        if used > sent {
            gpu.upload(pinned, *sent, used - sent, device + *sent as Address);
        }
    }

    /// What was filled so far has its copy queued; the next one brings what comes behind it.
    pub(crate) fn sent(&mut self) {
        self.sent = self.used;
    }

    /// Claims room for `room` entries filled with `blank`, to be written.
    ///
    /// # Panics
    /// The buffer is full: its size is computed from the limits of a step.
    pub(crate) fn claim<T: Pod>(&mut self, room: usize, blank: T) -> (Address, &mut [T]) {
        let at = self.used.next_multiple_of(ALIGN);
        let end = at + room * size_of::<T>();
        let bytes = self.pinned.bytes_mut();
        assert!(end <= bytes.len(), "a step's payload of {end} bytes, {} claimed", bytes.len());
        self.used = end;
        let entries: &mut [T] = bytemuck::cast_slice_mut(&mut bytes[at..end]);
        entries.fill(blank);
        (self.device + at as Address, entries)
    }

    /// Entries, then `blank` up to `room` of them. Where they will be on the device.
    pub(crate) fn list<T: Pod>(&mut self, entries: &[T], room: usize, blank: T) -> Address {
        let (address, list) = self.claim(room.max(entries.len()), blank);
        list[..entries.len()].copy_from_slice(entries);
        address
    }

    /// A number that kernels read from device memory because it varies between steps that are
    /// launched alike.
    pub(crate) fn number(&mut self, value: usize) -> Address {
        self.list(&[value as u32], 1, 0)
    }
}
