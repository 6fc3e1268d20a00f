//! How tensors are named where families differ from the usual: layers of either file format,
//! fused projections, and what may lie unused beside a model.

use crate::spec::{LayerPart as P, ModelSpec};
use crate::weights::Source;

/// A tensor of a layer in a Hugging Face checkpoint.
pub(super) fn hub(layer: usize, rest: &str) -> Source {
    Source::all(format!("layers.{layer}.{rest}"))
}

/// A tensor of a layer in a GGUF file.
pub(super) fn gguf(layer: usize, rest: &str) -> Source {
    Source::all(format!("blk.{layer}.{rest}"))
}

/// Queries, keys and values as rows of one tensor; `name` makes its name.
pub(super) fn fused_qkv(
    spec: &ModelSpec,
    layer: usize,
    part: P,
    name: impl Fn(&str) -> Source,
) -> Option<Source> {
    let attention = &spec.layers[layer].attention;
    let queries = attention.heads * attention.head_dim;
    let keys = attention.kv_heads * attention.head_dim;
    let (first, ending) = match part {
        P::Query => (0, "weight"),
        P::QueryBias => (0, "bias"),
        P::Key => (queries, "weight"),
        P::KeyBias => (queries, "bias"),
        P::Value => (queries + keys, "weight"),
        P::ValueBias => (queries + keys, "bias"),
        _ => return None,
    };
    Some(Source::run(name(ending).name, first, queries + 2 * keys))
}

/// The gate and the other projection as rows of one tensor, the gate first.
pub(super) fn fused_gate_up(
    spec: &ModelSpec,
    layer: usize,
    part: P,
    name: impl Fn(&str) -> Source,
) -> Option<Source> {
    let width = spec.layers[layer].mlp.width();
    let (first, ending) = match part {
        P::Gate => (0, "weight"),
        P::GateBias => (0, "bias"),
        P::Up => (width, "weight"),
        P::UpBias => (width, "bias"),
        _ => return None,
    };
    Some(Source::run(name(ending).name, first, 2 * width))
}

/// The norms behind the blocks under Gemma 2's and OLMo 2's names.
pub(super) fn post_norms(layer: usize, part: P) -> Option<Source> {
    Some(match part {
        P::AttentionPostNorm => hub(layer, "post_attention_layernorm.weight"),
        P::MlpNorm => hub(layer, "pre_feedforward_layernorm.weight"),
        P::MlpPostNorm => hub(layer, "post_feedforward_layernorm.weight"),
        _ => return None,
    })
}

/// Layers beyond the model's: they guess tokens ahead (multi-token prediction), which is not done
/// here.
pub(super) fn beyond(spec: &ModelSpec, name: &str) -> bool {
    let rest = name.split_once("layers.").or_else(|| name.split_once("blk."));
    let index = rest.and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
    index.is_some_and(|index| index >= spec.layers.len())
}
