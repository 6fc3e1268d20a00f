//! Phi 3, 3.5 and 4, and Phi 4 mini: Llama with fused projections and, for long contexts,
//! longrope (arXiv 2404.14219, 2503.01743).

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub, names};
use crate::config::Fields;
use crate::spec::{ModelSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "phi3",
    architectures: &["Phi3ForCausalLM"],
    model_types: &["phi3"],
    gguf: &["phi3"],
    own_code: true,
    hub_source,
    gguf_source,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 4096, eps: ("rms_norm_eps", 1e-5), ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    // Models that are not stretched state this length too.
    hub::idle(config, &["original_max_position_embeddings"]);
    let window = hub::window(config)?;
    hub::one_window(config, &mut spec, window)?;
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::windows(header, &mut spec, |_| true)?;
    Ok(spec)
}

fn hub_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let qkv = |ending: &str| names::hub(layer, &format!("self_attn.qkv_proj.{ending}"));
    names::fused_qkv(spec, layer, part, qkv).or_else(|| gate_up(spec, role))
}

/// The fused gate, as GLM has it too.
pub(super) fn gate_up(spec: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let gate_up = |ending: &str| names::hub(layer, &format!("mlp.gate_up_proj.{ending}"));
    names::fused_gate_up(spec, layer, part, gate_up)
}

/// Both fused projections of a GGUF file.
pub(super) fn gguf_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let qkv = |ending: &str| names::gguf(layer, &format!("attn_qkv.{ending}"));
    names::fused_qkv(spec, layer, part, qkv).or_else(|| gguf_gate_up(spec, role))
}

/// The fused gate of a GGUF file.
pub(super) fn gguf_gate_up(spec: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let up = |ending: &str| names::gguf(layer, &format!("ffn_up.{ending}"));
    names::fused_gate_up(spec, layer, part, up)
}
