//! Bytes to the device while weights are loaded: two pinned buffers, one filled while the other
//! travels, so that reading (or repacking) and copying overlap.

use kernels::{Error, Fault};

use crate::gpu::{Address, Gpu, MARKS, Mark, Pinned};

/// Bytes of a buffer: large enough that a copy runs at the speed of the bus.
const BYTES: usize = 16 << 20;
/// The marks that say when a buffer is free again; the others belong to steps.
const MARK: [Mark; 2] = [Mark(MARKS - 1), Mark(MARKS - 2)];

/// The two buffers.
pub(crate) struct Upload {
    buffers: [Pinned; 2],
    /// Whether a buffer's copy was queued and not waited for.
    busy: [bool; 2],
    turn: usize,
}

impl Upload {
    pub(crate) fn new<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        let buffers = [gpu.pinned(BYTES)?, gpu.pinned(BYTES)?];
        Ok(Self { buffers, busy: [false; 2], turn: 0 })
    }

    /// Sends `bytes` bytes to `to`; `fill(from, part)` writes bytes `from..from + part.len()` of
    /// them. Parts are multiples of `unit` bytes, but for the last.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn send<G: Gpu>(
        &mut self,
        gpu: &mut G,
        to: Address,
        (bytes, unit): (usize, usize),
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Error> {
        assert!((1..=BYTES).contains(&unit), "units of {unit} bytes");
        let part = BYTES / unit * unit;
        for from in (0..bytes).step_by(part) {
            let len = part.min(bytes - from);
            self.turn ^= 1;
            self.free(gpu, self.turn)?;
            let buffer = &mut self.buffers[self.turn];
            fill(from, &mut buffer.bytes_mut()[..len]);
            gpu.upload(buffer, 0, len, to + from as Address);
            gpu.mark(MARK[self.turn]);
            self.busy[self.turn] = true;
        }
        Ok(())
    }

    /// Waits until everything sent has arrived.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn finish<G: Gpu>(&mut self, gpu: &mut G) -> Result<(), Error> {
        self.free(gpu, 0)?;
        self.free(gpu, 1)
    }

    fn free<G: Gpu>(&mut self, gpu: &mut G, turn: usize) -> Result<(), Error> {
        if std::mem::replace(&mut self.busy[turn], false) {
            gpu.wait(MARK[turn]).map_err(|fault| match fault {
                Fault::Step(text) | Fault::Lost(text) => Error::Device(text),
            })?;
        }
        Ok(())
    }
}
