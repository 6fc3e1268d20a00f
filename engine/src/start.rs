//! From opened files and a plan to a running engine: claims memory, loads weights, and says what
//! the scheduler has to know about the result.

use kernels::cpu::isa::Isa;
use kernels::cpu::{Cpu, CpuConfig};
use kernels::{Compute, Error};
use scheduler::Config;

use crate::model::ModelFiles;
use crate::plan::Plan;
use crate::runner::Runner;
use crate::spec::ModelSpec;
use crate::transformer::Transformer;
use crate::weights::{LoadError, Weights};

/// A part of the memory plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The model's weights.
    Weights,
    /// The pool of KV pages.
    Cache,
    /// Activations and logits of one step.
    Activations,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Cache => "KV cache",
            Self::Activations => "activations",
        })
    }
}

/// A model cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its files are incomplete or malformed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device cannot hold what was planned.
    #[error("out of memory: the device refused {wanted} bytes for the {part}. {}", advice(*.part))]
    OutOfMemory {
        /// Which part of the plan.
        part: Part,
        /// Size of the claim that failed.
        wanted: usize,
    },
    /// The device cannot compute it.
    #[error("the device cannot take the {part}: {source}")]
    Device {
        /// Which part of the plan.
        part: Part,
        /// The device's own words.
        source: Error,
    },
    /// The device itself is not there.
    #[error("{0}")]
    NoDevice(String),
    /// No code for this model.
    #[error("this model cannot be run: {0}")]
    Unsupported(String),
}

impl StartError {
    /// A device's error while it took in `part`.
    pub(crate) fn device(part: Part, error: Error) -> Self {
        match error {
            Error::OutOfMemory { wanted, .. } => Self::OutOfMemory { part, wanted },
            source => Self::Device { part, source },
        }
    }
}

/// What an operator can do about it.
fn advice(part: Part) -> &'static str {
    match part {
        Part::Weights => "Take a smaller or a quantized model, or free memory on the device.",
        Part::Cache => "Ask for a smaller KV cache or a shorter context.",
        Part::Activations => "Ask for fewer tokens per step.",
    }
}

/// A model on a device, ready to run: what [`Runner::new`] takes.
pub struct Loaded<C: Compute> {
    /// The device.
    pub compute: C,
    /// The model on it.
    pub model: Transformer<C>,
    /// The KV pool.
    pub cache: C::Cache,
}

/// Puts a model on a device under `plan`. The KV pool is claimed first: it is the part an
/// operator sizes, so its failure should come before minutes of reading weights.
///
/// # Errors
/// See [`StartError`].
pub fn load<C: Compute>(
    mut compute: C,
    spec: &ModelSpec,
    weights: &dyn Weights,
    plan: &Plan,
) -> Result<Loaded<C>, StartError> {
    let cache =
        compute.cache(plan.cache).map_err(|error| StartError::device(Part::Cache, error))?;
    let model = Transformer::load(&mut compute, spec, weights, plan)?;
    Ok(Loaded { compute, model, cache })
}

/// What the scheduler has to know about a planned model; its other limits are its defaults.
#[must_use]
pub fn scheduler_config(plan: &Plan) -> Config {
    let defaults = Config::new(plan.rows_max, plan.cache.pages, plan.context);
    // Every step holds one token of each row and some of a prompt.
    let spare = plan.step_tokens_max.saturating_sub(plan.rows_max);
    Config {
        step_tokens_max: plan.step_tokens_max,
        prefill_tokens_min: defaults.prefill_tokens_min.min(spare),
        ..defaults
    }
}

/// The engine on a CPU.
pub type CpuRunner = Runner<Cpu>;

/// Starts a model on the CPU. Nothing of `files` is used afterwards: drop them to let their
/// mappings go.
///
/// # Errors
/// See [`StartError`].
pub fn start_cpu(files: &ModelFiles, plan: &Plan) -> Result<CpuRunner, StartError> {
    let device = Cpu::new(cpu_config(&files.spec, plan));
    let loaded = load(device, &files.spec, files.weights.as_ref(), plan)?;
    // A launch computes on the calling thread: a second step in flight would gain nothing.
    Ok(Runner::new(loaded, plan, 1))
}

/// A CPU device for this model under `plan`.
#[must_use]
pub fn cpu_config(spec: &ModelSpec, plan: &Plan) -> CpuConfig {
    CpuConfig {
        threads: plan.threads,
        precision: plan.precision,
        rows_max: plan.step_tokens_max,
        slots: plan.rows_max,
        context_max: plan.context,
        vocab: spec.vocab,
        isa: Isa::detect(),
    }
}
