//! Models on NVIDIA GPUs. With `plan` the only file of the engine that knows of such devices: what
//! a model takes there, how it is started, and how it comes back after the device was lost.

use std::sync::Arc;

use cuda::cubins::Origin;
use cuda::gpu::{Gpu, Properties};
use cuda::nvidia::Nvidia;
use cuda::{Cuda, CudaConfig, Kind};
use kernels::{CacheShape, Format, Kept, Precision};

use crate::embed::{Embedder, Pooler};
use crate::model::ModelFiles;
use crate::plan::{Plan, Room};
use crate::runner::Runner;
use crate::spec::{ModelSpec, Need};
use crate::start::{Loaded, Part, StartError, load};
use crate::transformer::{Elements, activations, widths};
use crate::weights::{self, Weights};

pub mod tools;

pub use cuda::nvidia::OpenError;

/// The engine on a GPU.
pub type GpuRunner = Runner<Cuda<Nvidia>>;
/// An embedder on a GPU.
pub type GpuEmbedder = Embedder<Cuda<Nvidia>>;

/// A GPU, looked at but not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its number.
    pub ordinal: u32,
    /// What it is.
    pub properties: Properties,
    /// Bytes that nobody uses.
    pub free_bytes: u64,
}

impl Card {
    /// Looks at GPU `ordinal`.
    ///
    /// # Errors
    /// No driver, one that is too old, or no such device.
    pub fn open(ordinal: u32) -> Result<Self, OpenError> {
        let gpu = Nvidia::open(ordinal)?;
        let (properties, free_bytes) = (gpu.properties().clone(), gpu.free_bytes());
        Ok(Self { ordinal, properties, free_bytes })
    }

    /// Makes sure that its kernels are there: what was not built in and is not kept from before is
    /// compiled, which takes a while. `compiled` hears of each such file and, where it could not
    /// be kept for the next start, why.
    ///
    /// # Errors
    /// There are no kernels for it and nothing that compiles them, in words for people.
    pub fn prepare(
        &self,
        compiled: &(dyn Fn(&str, Option<&str>) + Sync),
    ) -> Result<(), StartError> {
        let report = |file: &str, origin: &Origin| {
            if let Origin::Compiled(kept) = origin {
                compiled(file, kept.as_ref().err().map(String::as_str));
            }
        };
        cuda::cubins::prepare(self.properties.capability, &report)
            .map_err(|error| StartError::NoDevice(error.to_string()))
    }

    /// The room in it for a model: `share` of its memory, but no more than is free.
    #[must_use]
    pub fn room(&self, share: GpuMemory) -> Room {
        let wanted = match share {
            GpuMemory::Share(share) => (self.properties.memory_bytes as f64 * share) as u64,
            GpuMemory::Bytes(bytes) => bytes,
        };
        let blocks = cuda::arch::Arch::of(&self.properties).map_or(0, |arch| arch.blocks_wanted);
        Room::Gpu { bytes: wanted.min(self.free_bytes), blocks }
    }
}

/// How much of a GPU's memory a model may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GpuMemory {
    /// A share of all of it, above 0 and at most 1.
    Share(f64),
    /// So many bytes.
    Bytes(u64),
}

/// Bytes that a tensor takes on a GPU.
pub(crate) fn weight_bytes(need: &Need, format: Format, precision: Precision) -> u64 {
    let bytes = match need.role {
        role if role.is_vector() => (4 * need.cols).next_multiple_of(256),
        role if weights::is_wide(role) => {
            cuda::matrix_bytes(Format::F32, need.rows, need.cols, precision)
        }
        _ => cuda::matrix_bytes(format, need.rows, need.cols, precision),
    };
    bytes as u64
}

/// Bytes that a model takes on a GPU beside its weights and its pool: activations, tables, state
/// of slots, scratch.
pub(crate) fn beside_weights(
    spec: &ModelSpec,
    (precision, cache, context): (Precision, CacheShape, usize),
    step_tokens_max: usize,
    blocks: usize,
) -> u64 {
    let config = config_of(spec, precision, (step_tokens_max, cache.slots, context));
    let memory = cuda::memory(&config, blocks);
    let step = cuda::rounded_rows(step_tokens_max);
    let Elements { exact, rounded } = activations(spec, step, cache.slots);
    let rounded_bytes = rounded * Kind::of(Kept::Rounded, precision).bytes();
    let tables = cuda::cache_bytes(&CacheShape { pages: 0, ..cache });
    (4 * exact + rounded_bytes + tables + memory.total()) as u64
}

fn config_of(
    spec: &ModelSpec,
    precision: Precision,
    (rows_max, slots, context_max): (usize, usize, usize),
) -> CudaConfig {
    let (width_max, attended_max) = widths(spec);
    CudaConfig {
        precision,
        rows_max,
        slots,
        context_max,
        vocab: spec.vocab,
        width_max,
        attended_max,
        graphs: true,
    }
}

/// A device for this model under `plan`.
#[must_use]
pub fn config(spec: &ModelSpec, plan: &Plan) -> CudaConfig {
    config_of(spec, plan.precision, (plan.step_tokens_max, plan.rows_max, plan.context))
}

/// Puts a model on a device.
///
/// # Errors
/// See [`StartError`].
pub fn load_on<G: Gpu>(
    gpu: G,
    spec: &ModelSpec,
    weights: &dyn Weights,
    plan: &Plan,
) -> Result<Loaded<Cuda<G>>, StartError> {
    let device = Cuda::new(gpu, config(spec, plan))
        .map_err(|error| StartError::device(Part::Activations, error))?;
    load(device, spec, weights, plan)
}

fn open(ordinal: u32) -> Result<Nvidia, StartError> {
    Nvidia::open(ordinal).map_err(|error| StartError::NoDevice(error.to_string()))
}

/// Starts a model on GPU `ordinal`. Its files stay mapped: after a fault of the device the weights
/// are read again and what ran is computed again from its tokens.
///
/// # Errors
/// See [`StartError`].
pub fn start(files: &ModelFiles, plan: &Plan, ordinal: u32) -> Result<GpuRunner, StartError> {
    let (spec, weights, plan) = (files.spec.clone(), Arc::clone(&files.weights), plan.clone());
    let build = {
        let plan = plan.clone();
        move || load_on(open(ordinal)?, &spec, weights.as_ref(), &plan)
    };
    let loaded = build()?;
    // Launches only queue work: the next step is queued before this one is read.
    Ok(Runner::new(loaded, &plan, 2).with_recovery(Box::new(build)))
}

/// Starts a model that makes vectors or scores on GPU `ordinal`.
///
/// # Errors
/// See [`StartError`].
pub fn start_embedder(
    files: &ModelFiles,
    pooler: Pooler,
    plan: &Plan,
    ordinal: u32,
) -> Result<GpuEmbedder, StartError> {
    let loaded = load_on(open(ordinal)?, &files.spec, files.weights.as_ref(), plan)?;
    Ok(Embedder::new(loaded, pooler, plan))
}
