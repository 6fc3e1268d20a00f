//! Gemma 3: Gemma 2 with norms of queries and keys for the soft caps, five layers with windows
//! for each one without, and a slower rotation of their own (arXiv 2503.19786).
//!
//! Checkpoints that also see images are read for their text part.

use super::decoder::{each_head, set_qk_norm};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, gemma, gemma2, header_rope, hub, rope};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    model_types: &["gemma3_text", "gemma3"],
    gguf: &["gemma3"],
    hub_source: gemma2::hub_source,
    prefixes: &["model.", "", "language_model.model.", "model.language_model."],
    spare,
    from_config,
    from_header,
    ..USUAL
};

const THETA_GLOBAL: f64 = 1e6;
const PATTERN_MAX: usize = super::decoder::LAYERS_MAX;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    match config.object("text_config")? {
        None => text(config),
        Some(inner) => {
            // What the picture part is made of has no effect on text.
            hub::idle(config, &["vision_config", "mm_tokens_per_image"]);
            text(&inner)
        }
    }
}

fn text(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling =
        Spelling { context: 131_072, kv_heads: Some(4), theta: THETA_GLOBAL, ..gemma::SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    spec.norm.offset = 1.0;
    hub::attention_bias(config, &mut spec, false)?;
    let scalar = config.number("query_pre_attn_scalar", 1.0, 1e6)?.unwrap_or(256.0);
    let soft_cap = hub::cap(config, "attn_logit_softcapping")?;
    gemma2::sandwich(&mut spec, (scalar as f32).sqrt().recip(), soft_cap);
    set_qk_norm(&mut spec, each_head);
    if let Some(head) = &mut spec.head {
        head.soft_cap = hub::cap(config, "final_logit_softcapping")?;
    }
    let pattern = config.count("sliding_window_pattern", PATTERN_MAX)?;
    let pattern = pattern.or(config.count("_sliding_window_pattern", PATTERN_MAX)?).unwrap_or(6);
    let window = if config.spells("sliding_window") { hub::window(config)? } else { Some(4096) };
    hub::windows(config, &mut spec, window, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let head_dim = spec.layers[0].attention.head_dim;
    let base = rope::Base { theta: 10_000.0, ..hub::base(&spelling, head_dim, spec.context) };
    spec.ropes.push(rope::local(config, "rope_local_base_freq", &base)?);
    windows_turn(&mut spec);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &gemma::HABITS)?;
    let scale = gemma2::header_scale(&spec, 62);
    gemma2::sandwich(&mut spec, scale, None);
    set_qk_norm(&mut spec, each_head);
    if let Some(head) = &mut spec.head {
        head.soft_cap = header.cap("final_logit_softcapping")?;
    }
    header::windows(header, &mut spec, |layer| !(layer + 1).is_multiple_of(6))?;
    let head_dim = spec.layers[0].attention.head_dim;
    spec.ropes.push(header_rope::local(header, head_dim, rope::THETA_DEFAULT)?);
    windows_turn(&mut spec);
    Ok(spec)
}

/// Layers with windows turn by the second rotation.
pub(super) fn windows_turn(spec: &mut ModelSpec) {
    for layer in &mut spec.layers {
        layer.attention.rope = Some(usize::from(layer.attention.window.is_some()));
    }
}

/// The picture part of a checkpoint.
fn spare(_: &ModelSpec, name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.")
}
