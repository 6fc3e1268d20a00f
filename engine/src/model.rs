//! A model found on disk: its spec, its weights and everything that text needs from its files.

use std::path::PathBuf;
use std::sync::Arc;

use kernels::{CacheElement, Format, Precision};

use crate::adapter::AdapterBase;
use crate::spec::ModelSpec;
use crate::weights::{DeviceBytes, Weights};

/// Sampling defaults that a model's author ships (`generation_config.json`). `None`: not stated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// `false` means that greedy decoding is the default.
    pub do_sample: Option<bool>,
    /// See `scheduler::Sampling`.
    pub temperature: Option<f32>,
    /// See `scheduler::Sampling`.
    pub top_p: Option<f32>,
    /// See `scheduler::Sampling`.
    pub top_k: Option<u32>,
    /// See `scheduler::Sampling`.
    pub min_p: Option<f32>,
    /// See `scheduler::Sampling`.
    pub typical_p: Option<f32>,
    /// See `scheduler::Sampling`.
    pub repetition_penalty: Option<f32>,
    /// Upper bound of new tokens.
    pub max_new_tokens: Option<u32>,
}

/// `--dtype`: what the products compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// What the file holds: bf16 and f16 files compute in their type, f32 files in float32,
    /// quantized files with 8-bit activations.
    #[default]
    Auto,
    /// float32 arithmetic whatever the file holds (quantized weights are widened).
    Float32,
    /// bfloat16 activations and cache.
    Bfloat16,
    /// float16 activations and cache.
    Float16,
}

/// A model's files, opened and checked, not yet on a device.
pub struct ModelFiles {
    /// Where it came from.
    pub path: PathBuf,
    /// What it computes.
    pub spec: ModelSpec,
    /// Its tensors, mapped.
    pub weights: Arc<dyn Weights + Send + Sync>,
    /// Bytes of all tensors on disk.
    pub weight_bytes: u64,
    /// Bytes that they take on a CPU, packed for its products.
    pub packed_bytes: u64,
    /// Bytes that they take on a GPU.
    pub device_bytes: DeviceBytes,
    /// Most weights' type; its name is for people: `bf16`, `q4_k`, ...
    pub format: Format,
    /// What `Dtype::Auto` means for these files.
    pub auto_precision: Precision,
    /// Cache element that goes with `auto_precision`.
    pub auto_cache: CacheElement,
    /// Author's sampling defaults.
    pub defaults: GenerationDefaults,
    /// Every id that ends a sequence.
    pub eos: Vec<u32>,
    /// What in the files has no effect here, for the operator to read at start.
    pub notes: Vec<String>,
    /// What adapters have to fit; `None` where none can be read for it.
    pub adapter_base: Option<AdapterBase>,
    /// Tokenizer, special tokens and chat template.
    pub text: text::TextModel,
}
