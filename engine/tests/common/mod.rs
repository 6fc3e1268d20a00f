//! What the engine's tests share: the fixtures, a model driven by hand, a model served through
//! the real scheduler.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod direct;
pub(crate) mod reference;
pub(crate) mod rig;
pub(crate) mod rounding;
pub(crate) mod serve;
pub(crate) mod tensors;

use std::path::{Path, PathBuf};

use engine::model::{Dtype, ModelFiles};
use engine::plan::{Plan, cache_shape};
use engine::spec::ModelSpec;
use kernels::{CacheElement, CacheShape, Precision};
use scheduler::types::PAGE_TOKENS;

/// Threads of the CPU device in tests.
const THREADS: usize = 2;

/// The folder of the repository's test data.
pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data")
}

/// What a test wants to run at once; the rest of a plan follows from the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) step_tokens: usize,
    pub(crate) pages: usize,
}

/// A plan of exactly this size, whatever memory is at hand.
pub(crate) fn plan(files: &ModelFiles, dtype: Dtype, size: Size) -> Plan {
    let (precision, element) = match dtype {
        Dtype::Auto => (files.auto_precision, files.auto_cache),
        Dtype::Float32 => (Precision::Float32, CacheElement::F32),
        Dtype::Bfloat16 => (Precision::Bfloat16, CacheElement::Bf16),
        Dtype::Float16 => (Precision::Float16, CacheElement::F16),
    };
    plan_of(&files.spec, files.weight_bytes, (precision, element), size)
}

/// As [`plan`], for a model that was opened without its tokenizer.
pub(crate) fn plan_of(
    spec: &ModelSpec,
    weight_bytes: u64,
    (precision, element): (Precision, CacheElement),
    size: Size,
) -> Plan {
    let cache = CacheShape {
        pages: size.pages,
        element,
        slots: size.rows,
        pages_per_slot: spec.context.div_ceil(PAGE_TOKENS),
        ..cache_shape(spec)
    };
    Plan {
        precision,
        cache,
        context: spec.context,
        rows_max: size.rows,
        step_tokens_max: size.step_tokens,
        threads: THREADS,
        gpu: false,
        weight_bytes,
        cache_bytes: (cache.pages * cache.page_bytes()) as u64,
        activation_bytes: 0,
    }
}

/// Index of the largest value, the first of equals.
pub(crate) fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best as u32
}

/// Natural logarithm of the softmax.
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|logit| (f64::from(logit - max) - sum.ln()) as f32).collect()
}
