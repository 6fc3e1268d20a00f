//! On which device models run, and what of it they may take.

use std::fmt;

use engine::cuda::Card;
use engine::plan::Room;

use super::{WiringError, memory_available};
use crate::config::{Config, Device, GpuMemory};
use crate::machine;

/// Rows and tokens of a step where the operator chose none.
const CPU_ROWS: usize = 32;
const CPU_STEP_TOKENS: usize = 512;
const GPU_ROWS: usize = 256;
const GPU_STEP_TOKENS: usize = 2048;
/// Cards of so much memory take longer steps: activations of 8192 tokens are a small part of it.
const LARGE_GPU: u64 = 64 << 30;
const LARGE_GPU_STEP_TOKENS: usize = 8192;

/// Adapters of a model on a GPU: their addresses go up with each step.
const GPU_ADAPTERS_MAX: u32 = 512;

/// A device that was chosen. Prints as a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The CPU, and why not a GPU.
    Cpu(Option<String>),
    /// A GPU.
    Gpu(Card),
}

impl Target {
    /// By the configuration and what is there.
    ///
    /// # Errors
    /// The device asked for by name is not there.
    pub fn choose(config: &Config) -> Result<Self, WiringError> {
        // Nothing of the driver is touched where its library is not there.
        let open = |ordinal: u32| -> Result<Card, String> {
            machine::cuda_driver()?;
            Card::open(ordinal).map_err(|error| error.to_string())
        };
        let target = match config.device {
            Device::Cpu => Ok(Self::Cpu(None)),
            Device::Auto => Ok(open(0).map_or_else(|why| Self::Cpu(Some(why)), Self::Gpu)),
            Device::Cuda(n) => open(n).map(Self::Gpu).map_err(|why| {
                WiringError::Device(format!(
                    "cuda:{n}: no CUDA device ({why}); use --device cpu or auto, or install the \
                     driver"
                ))
            }),
        }?;
        match target {
            Self::Gpu(_) if config.adapters_max > GPU_ADAPTERS_MAX => {
                Err(WiringError::Device(format!(
                    "--adapters-max {}: on a GPU at most {GPU_ADAPTERS_MAX}",
                    config.adapters_max
                )))
            }
            target => Ok(target),
        }
    }

    /// `cpu` or `cuda:N`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Cpu(_) => "cpu".to_owned(),
            Self::Gpu(card) => format!("cuda:{}", card.ordinal),
        }
    }

    /// What a model may take now.
    pub(super) fn room(&self, config: &Config) -> Result<Room, WiringError> {
        let Self::Gpu(card) = self else { return Ok(memory_available().into()) };
        // Models loaded before took theirs.
        let card = Card::open(card.ordinal).map_err(|e| WiringError::Device(e.to_string()))?;
        Ok(card.room(match config.gpu_memory {
            GpuMemory::Share(share) => engine::cuda::GpuMemory::Share(share),
            GpuMemory::Size(bytes) => engine::cuda::GpuMemory::Bytes(bytes),
        }))
    }

    /// Makes sure that there are kernels for it, and says what has to be compiled.
    pub(super) fn prepare(&self) -> Result<(), WiringError> {
        let Self::Gpu(card) = self else { return Ok(()) };
        card.prepare(&|file, not_kept| match not_kept {
            None => tracing::info!("compiled {file} for this card, kept for the next start"),
            Some(why) => tracing::warn!("compiled {file} for this card; not kept: {why}"),
        })?;
        Ok(())
    }

    /// Rows at once and tokens in a step.
    pub(super) fn step(&self, config: &Config) -> (usize, usize) {
        let (rows, tokens) = match self {
            Self::Cpu(_) => (CPU_ROWS, CPU_STEP_TOKENS),
            Self::Gpu(card) if card.properties.memory_bytes >= LARGE_GPU => {
                (GPU_ROWS, LARGE_GPU_STEP_TOKENS)
            }
            Self::Gpu(_) => (GPU_ROWS, GPU_STEP_TOKENS),
        };
        let rows = config.rows_max.unwrap_or(rows);
        (rows, config.step_tokens.unwrap_or(tokens).max(rows + 1))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(None) => f.write_str("cpu"),
            Self::Cpu(Some(why)) => write!(f, "cpu (no CUDA device: {why})"),
            Self::Gpu(card) => {
                let (name, capability) = (&card.properties.name, card.properties.capability);
                let (major, minor) = (capability / 10, capability % 10);
                write!(f, "cuda:{} ({name}, {major}.{minor})", card.ordinal)
            }
        }
    }
}
