//! What a [`super::Cuda`] claims beside weights, activations and the cache: buffers of steps and
//! scratch of ops. Known before anything is claimed, so that a plan can be made and kept.

use kernels::Error;

use super::{CudaConfig, Turn};
use crate::gpu::{Gpu, MARKS, Mark};
use crate::ops::{attention, experts, low_rank, matmul, sample};
use crate::step::{Payload, bucket};
use crate::tensor::Kind;

/// Bytes of lists for a row of a step: tokens, places, work of attention, draws.
const ROW_BYTES: usize = 192;
/// Bytes of lists whatever the rows: tables of ropes, and an address per adapter for each adapted
/// product. 512 adapters of a model of 120 layers take 3.3 MiB.
const STEP_BYTES: usize = 4 << 20;
/// Bytes for slots that start, unless one alone needs more.
const START_BYTES: usize = 1 << 20;

/// Bytes of device memory of a tensor.
pub(super) fn tensor_bytes(rows: usize, width: usize, kind: Kind) -> usize {
    // Kernels read whole groups of 16 bytes.
    (rows * width * kind.bytes()).next_multiple_of(256)
}

/// Device memory that a [`super::Cuda`] claims when it is made, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Lists of steps.
    pub steps: usize,
    /// State of slots: samplers, counts of tokens, results.
    pub slots: usize,
    /// Scratch of products, attention, experts and adapters.
    pub scratch: usize,
}

impl Memory {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.steps + self.slots + self.scratch
    }
}

/// Rows of a tensor that was asked for with a step's rows.
#[must_use]
pub fn rounded_rows(rows: usize) -> usize {
    bucket(rows)
}

/// What a device of so many blocks wanted claims under `config`.
#[must_use]
pub fn memory(config: &CudaConfig, blocks_wanted: usize) -> Memory {
    let [step, starts] = payload_bytes(config);
    Memory {
        steps: step + starts,
        slots: sample::bytes(config),
        scratch: matmul::scratch_bytes(config)
            + attention::scratch_bytes(config, blocks_wanted)
            + experts::scratch_bytes(config)
            + low_rank::scratch_bytes(config),
    }
}

fn payload_bytes(config: &CudaConfig) -> [usize; 2] {
    let step = STEP_BYTES + ROW_BYTES * bucket(config.rows_max);
    let starts = START_BYTES.max(sample::start_bytes_max(config) + 4096);
    [step, starts].map(|bytes| bytes.next_multiple_of(256))
}

/// The buffers of the steps under way. They share their places on the device: a payload is copied
/// there when the step before has run. Every step finds its lists at the same addresses then, or
/// none could be replayed.
pub(super) fn turns<G: Gpu>(gpu: &mut G, config: &CudaConfig) -> Result<Vec<Turn>, Error> {
    let [step_bytes, starts_bytes] = payload_bytes(config);
    let step = gpu.claim("lists of a step", step_bytes)?;
    let starts = gpu.claim("lists of a step", starts_bytes)?;
    let turn = |i: usize| -> Result<Turn, Error> {
        assert!(2 * i + 1 < MARKS - 2, "a mark for each end of a step");
        Ok(Turn {
            step: Payload::new(gpu.pinned(step_bytes)?, step),
            starts: Payload::new(gpu.pinned(starts_bytes)?, starts),
            marks: [Mark(2 * i), Mark(2 * i + 1)],
        })
    };
    (0..super::RING).map(turn).collect()
}

impl<G: Gpu> super::Cuda<G> {
    /// Overwrites the first rows of a tensor, for tests.
    pub(crate) fn write(&mut self, x: &crate::tensor::Tensor, values: &[f32]) {
        let narrow = |value: f32| -> Vec<u8> {
            match x.kind {
                Kind::F32 => value.to_le_bytes().to_vec(),
                Kind::Bf16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
                Kind::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
            }
        };
        let bytes: Vec<u8> = values.iter().flat_map(|&value| narrow(value)).collect();
        let Self { gpu, upload, .. } = self;
        let sent = upload.send(gpu, x.address, (bytes.len(), 1), |from, part| {
            part.copy_from_slice(&bytes[from..from + part.len()]);
        });
        sent.and_then(|()| upload.finish(gpu)).expect("a device that works");
    }
}
