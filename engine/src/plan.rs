//! The memory plan: what a model will take on a device, known before anything is loaded.
//!
//! It is printed at start and then kept: the loop claims nothing. It knows sizes only, neither
//! the device nor who will send requests.

use kernels::{CacheElement, CacheShape, CacheValues, Precision};

use crate::model::{Dtype, ModelFiles};
use crate::spec::ModelSpec;
use crate::transformer::activation_bytes;

mod memory;
mod report;

pub use memory::memory_available;

/// Tokens of a KV page: what the kernels take.
const PAGE_TOKENS: usize = 16;
/// Full contexts that the default pool holds at most.
const CONTEXTS_WANTED: u64 = 16;
/// The default pool takes at most this part of the memory at hand: a box does other things too.
const POOL_SHARE: u64 = 4;
/// The default pool is at most so many times the weights: a tiny model is served to try it out,
/// and nobody wants to see it take gigabytes.
const POOL_PER_WEIGHTS: u64 = 3;

/// What the operator chose; everything else follows from the model.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanOptions {
    /// `--dtype`.
    pub dtype: Dtype,
    /// Threads of the CPU device.
    pub threads: usize,
    /// Longest sequence served; `None`: the model's own context.
    pub context: Option<usize>,
    /// Bytes for the KV pool; `None`: chosen from the memory at hand.
    pub cache_bytes: Option<u64>,
    /// Type of keys and values; `None`: that of the arithmetic.
    pub cache_element: Option<CacheElement>,
    /// Sequences that run at once.
    pub rows_max: usize,
    /// Tokens computed in one step at most.
    pub step_tokens_max: usize,
}

/// The memory that a model is planned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Main memory, for the CPU device.
    Main {
        /// Bytes at hand.
        bytes: u64,
    },
    /// A GPU's own.
    Gpu {
        /// Bytes that may be taken.
        bytes: u64,
        /// Blocks that fill it: scratch of split attention goes with them.
        blocks: usize,
    },
}

impl Room {
    /// Bytes that may be taken.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Main { bytes } | Self::Gpu { bytes, .. } => bytes,
        }
    }
}

impl From<u64> for Room {
    /// Main memory.
    fn from(bytes: u64) -> Self {
        Self::Main { bytes }
    }
}

/// The budget of one loaded model, in bytes, to be printed and then kept. Serializes as one flat
/// object.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Arithmetic of the products.
    pub precision: Precision,
    /// The KV pool.
    pub cache: CacheShape,
    /// Longest sequence, a multiple of nothing: tokens.
    pub context: usize,
    /// Sequences that run at once.
    pub rows_max: usize,
    /// Tokens computed in one step at most.
    pub step_tokens_max: usize,
    /// Threads of the CPU device.
    pub threads: usize,
    /// It is a GPU's memory.
    pub gpu: bool,
    /// Weights in the device's layout.
    pub weight_bytes: u64,
    /// The KV pool.
    pub cache_bytes: u64,
    /// Activations and scratch.
    pub activation_bytes: u64,
}

/// No plan fits. Says what does not fit and what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An option is out of range by itself.
    #[error("{option}: {problem}")]
    Option {
        /// The field of [`PlanOptions`].
        option: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// Not even weights and activations fit.
    #[error(
        "the weights take {} and the activations {}, but {} of memory are at hand; \
         free memory, or take a smaller or a quantized model",
        report::bytes(*.weights), report::bytes(*.activations), report::bytes(*.available)
    )]
    Weights {
        /// Bytes of the weights.
        weights: u64,
        /// Bytes of the activations.
        activations: u64,
        /// Memory at hand.
        available: u64,
    },
    /// The KV cache does not hold one sequence: of what is left beside weights and activations,
    /// or of the size that was asked for.
    #[error(
        "a KV cache for {context} tokens takes {}, but it can have {}; {}",
        report::bytes(*.wanted), report::bytes(*.left), report::context_advice(*.context_max)
    )]
    Context {
        /// The context asked for, or the model's.
        context: usize,
        /// Bytes of a cache for it.
        wanted: u64,
        /// Bytes that it can have.
        left: u64,
        /// The longest context that fits.
        context_max: usize,
    },
    /// The pool that was asked for is larger than what is left.
    #[error(
        "a KV cache of {} was asked for, but {} are left beside the weights; ask for less",
        report::bytes(*.wanted), report::bytes(*.left)
    )]
    Cache {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left for it.
        left: u64,
    },
}

impl Plan {
    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.cache_bytes).saturating_add(self.activation_bytes)
    }

    /// Positions that the KV pool holds.
    #[must_use]
    pub fn cache_tokens(&self) -> usize {
        self.cache.pages * self.cache.page_tokens
    }
}

/// Shares room (of main memory: see [`memory_available`]) out between weights, activations and
/// the KV pool.
///
/// # Errors
/// It is not enough, or an option is out of range.
pub fn plan(
    files: &ModelFiles,
    options: &PlanOptions,
    room: impl Into<Room>,
) -> Result<Plan, PlanError> {
    let room = room.into();
    let (precision, element) = match options.dtype {
        Dtype::Auto => auto(files, room),
        Dtype::Float32 => (Precision::Float32, CacheElement::F32),
        Dtype::Bfloat16 => (Precision::Bfloat16, CacheElement::Bf16),
        Dtype::Float16 => (Precision::Float16, CacheElement::F16),
    };
    let element = options.cache_element.unwrap_or(element);
    let weights = match room {
        Room::Main { .. } => files.packed_bytes,
        Room::Gpu { .. } => files.device_bytes.of(precision),
    };
    for_spec(&files.spec, weights, (precision, element), options, room)
}

/// What `Dtype::Auto` means.
fn auto(files: &ModelFiles, room: Room) -> (Precision, CacheElement) {
    match room {
        // Products with quantized weights take operands of 16 bits there, and activations of
        // models trained in bf16 may leave f16's range.
        Room::Gpu { .. } if files.format.is_quantized() => {
            (Precision::Bfloat16, CacheElement::Bf16)
        }
        _ => (files.auto_precision, files.auto_cache),
    }
}

fn for_spec(
    spec: &ModelSpec,
    weights: u64,
    (precision, element): (Precision, CacheElement),
    options: &PlanOptions,
    room: Room,
) -> Result<Plan, PlanError> {
    let context = checked_context(spec, options)?;
    let available = room.bytes();
    let mut cache = CacheShape {
        element,
        slots: options.rows_max,
        pages_per_slot: context.div_ceil(PAGE_TOKENS),
        ..cache_shape(spec)
    };
    let activations = match room {
        Room::Main { .. } => activation_bytes(spec, options.step_tokens_max, options.rows_max),
        Room::Gpu { blocks, .. } => crate::cuda::beside_weights(
            spec,
            (precision, cache, context),
            options.step_tokens_max,
            blocks,
        ),
    };
    let left = available.saturating_sub(weights).saturating_sub(activations);
    if left == 0 {
        return Err(PlanError::Weights { weights, activations, available });
    }
    let page = cache.page_bytes() as u64;
    let one = cache.pages_per_slot as u64;
    let too_long = |left: u64| PlanError::Context {
        context,
        wanted: one.saturating_mul(page),
        left,
        context_max: usize::try_from(left / page).unwrap_or(0) * PAGE_TOKENS,
    };
    let wanted = match room {
        Room::Main { .. } => (CONTEXTS_WANTED * one)
            .min(available / POOL_SHARE / page)
            .min(weights.saturating_mul(POOL_PER_WEIGHTS) / page),
        // Nothing else needs a GPU's memory. More than every row at full length is of use to the
        // prefix cache only.
        Room::Gpu { .. } => one.saturating_mul(2 * options.rows_max as u64),
    };
    let pages = match options.cache_bytes {
        Some(wanted) if wanted > left => return Err(PlanError::Cache { wanted, left }),
        Some(wanted) if wanted / page < one => return Err(too_long(wanted)),
        Some(wanted) => wanted / page,
        None if left / page < one => return Err(too_long(left)),
        None => wanted.max(one).min(left / page),
    };
    // Page numbers are 32-bit below.
    let pages = pages.min(u64::from(u32::MAX - 1));
    cache.pages = pages as usize;
    Ok(Plan {
        precision,
        cache,
        context,
        rows_max: options.rows_max,
        step_tokens_max: options.step_tokens_max,
        threads: options.threads,
        gpu: matches!(room, Room::Gpu { .. }),
        weight_bytes: weights,
        cache_bytes: pages * page,
        activation_bytes: activations,
    })
}

/// The shape of a model's cache, of no pages and slots yet.
#[must_use]
pub fn cache_shape(spec: &ModelSpec) -> CacheShape {
    let attention = &spec.layers[0].attention;
    let in_keys = |latent: crate::spec::LatentSpec| CacheValues::InKeys { dim: latent.latent };
    CacheShape {
        layers: spec.layers.len(),
        pages: 0,
        page_tokens: PAGE_TOKENS,
        kv_heads: attention.cache_heads(),
        head_dim: attention.cache_dim(),
        values: attention.latent.map_or(CacheValues::Own, in_keys),
        element: CacheElement::F32,
        slots: 0,
        pages_per_slot: 0,
    }
}

fn checked_context(spec: &ModelSpec, options: &PlanOptions) -> Result<usize, PlanError> {
    let wrong = |option, problem| Err(PlanError::Option { option, problem });
    // Slot and row numbers are 32-bit below; a million of either is far beyond any device.
    for (option, value) in [
        ("threads", options.threads),
        ("rows_max", options.rows_max),
        ("step_tokens_max", options.step_tokens_max),
    ] {
        if !(1..=1 << 20).contains(&value) {
            return wrong(option, format!("wanted 1 to {}, found {value}", 1 << 20));
        }
    }
    if options.step_tokens_max <= options.rows_max {
        let (tokens, rows) = (options.step_tokens_max, options.rows_max);
        let problem = format!(
            "{tokens} is too few for rows_max, {rows}: every row needs a token, a prompt one more"
        );
        return wrong("step_tokens_max", problem);
    }
    match options.context {
        Some(context @ 0..2) => wrong(
            "context",
            format!("wanted 2 tokens at least, one to read and one to make, found {context}"),
        ),
        Some(context) if context > spec.context => wrong(
            "context",
            format!("the model was made for {} tokens at most, found {context}", spec.context),
        ),
        context => Ok(context.unwrap_or(spec.context)),
    }
}

#[cfg(test)]
mod tests;
