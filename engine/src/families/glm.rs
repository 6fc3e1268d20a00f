//! GLM-4 as published in 2024: Llama with a fused gate, half of each head turned, in pairs of
//! neighbours (arXiv 2406.12793).

use super::hub::Spelling;
use super::{Family, USUAL, hub, phi3};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "glm",
    architectures: &["GlmForCausalLM"],
    model_types: &["glm"],
    own_code: true,
    hub_source: phi3::gate_up,
    from_config,
    ..USUAL
};

/// Shared with GLM-4-0414.
pub(super) const SPELLING: Spelling = Spelling {
    context: 131_072,
    kv_heads: Some(2),
    head_dim: ("head_dim", Some(128)),
    rotary: 0.5,
    eps: ("rms_norm_eps", 1.5625e-7),
    ..hub::LLAMA
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &SPELLING)?;
    shape(config, &mut spec)?;
    Ok(spec)
}

/// Biases of q, k and v, and the pairing.
pub(super) fn shape(config: &Fields, spec: &mut ModelSpec) -> Result<(), LoadError> {
    let bias = config.flag("attention_bias")?.unwrap_or(true);
    for rope in &mut spec.ropes {
        rope.interleaved = true;
    }
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
    }
    Ok(())
}
