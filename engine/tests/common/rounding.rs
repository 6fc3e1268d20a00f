//! How far other precisions may be from float32, and what differences are measured on.

use super::reference::Prompt;

/// What transformers itself gave in other precisions: mean and largest absolute difference of
/// logits to float32 over 128 teacher-forced steps.
pub(crate) struct Rounded {
    pub(crate) name: &'static str,
    pub(crate) f16: Difference,
    pub(crate) bf16: Difference,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Difference {
    pub(crate) mean: f32,
    pub(crate) max: f32,
}

pub(crate) const fn dense(name: &'static str, f16: (f32, f32), bf16: (f32, f32)) -> Rounded {
    let (f16, bf16) =
        (Difference { mean: f16.0, max: f16.1 }, Difference { mean: bf16.0, max: bf16.1 });
    Rounded { name, f16, bf16 }
}

/// In a model of experts a rounding difference sends a token to another expert now and then, so
/// only the mean says something.
const fn experts(name: &'static str, f16: f32, bf16: f32) -> Rounded {
    dense(name, (f16, f32::INFINITY), (bf16, f32::INFINITY))
}

pub(crate) const PLAIN: [Rounded; 14] = [
    dense("llama_gqa", (0.0079, 0.066), (0.064, 0.57)),
    dense("llama_tied", (0.0076, 0.072), (0.06, 0.5)),
    dense("llama_bias", (0.0054, 0.058), (0.049, 0.52)),
    dense("mistral_swa", (0.0074, 0.052), (0.064, 0.58)),
    dense("qwen2", (0.007, 0.061), (0.051, 0.43)),
    dense("qwen3", (0.0049, 0.036), (0.038, 0.32)),
    dense("gemma2", (0.0054, 0.038), (0.044, 0.28)),
    dense("gemma3_text", (0.0038, 0.036), (0.031, 0.24)),
    dense("granite", (0.0035, 0.037), (0.029, 0.21)),
    dense("olmo2", (0.0036, 0.027), (0.029, 0.2)),
    dense("phi3_longrope", (0.0091, 0.098), (0.071, 0.84)),
    experts("qwen3_moe", 0.03, 0.25),
    experts("mixtral", 0.03, 0.25),
    experts("gpt_oss", 0.03, 0.25),
];

/// The prompt and all greedy tokens but the last, which nothing follows.
pub(crate) fn forced(prompt: &Prompt) -> Vec<u32> {
    let greedy = &prompt.greedy_ids[..prompt.greedy_ids.len() - 1];
    [prompt.input_ids.as_slice(), greedy].concat()
}

pub(crate) fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "lengths");
    assert!(a.iter().all(|value| value.is_finite()), "not a number");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
