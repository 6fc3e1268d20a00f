//! Gemma 2: Gemma with norms on both sides of the blocks, soft caps, and windows in every other
//! layer (arXiv 2408.00118).

use super::header::{self, Header};
use super::{Family, USUAL, gemma, hub, names};
use crate::config::Fields;
use crate::spec::{ModelSpec, Order, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "gemma2",
    architectures: &["Gemma2ForCausalLM"],
    model_types: &["gemma2"],
    gguf: &["gemma2"],
    hub_source,
    from_config,
    from_header,
    ..USUAL
};

/// The window of files that name none.
const WINDOW_DEFAULT: u32 = 4096;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = hub::Spelling { kv_heads: Some(4), ..gemma::SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    spec.norm.offset = 1.0;
    hub::attention_bias(config, &mut spec, false)?;
    let scalar = config.number("query_pre_attn_scalar", 1.0, 1e6)?.unwrap_or(256.0);
    let cap = |key: &str, default| {
        if config.spells(key) { hub::cap(config, key) } else { Ok(Some(default)) }
    };
    hub::idle(config, &["hidden_act", "sliding_window_size"]);
    let soft_cap = cap("attn_logit_softcapping", 50.0)?;
    sandwich(&mut spec, (scalar as f32).sqrt().recip(), soft_cap);
    if let Some(head) = &mut spec.head {
        head.soft_cap = cap("final_logit_softcapping", 30.0)?;
    }
    let window =
        if config.spells("sliding_window") { hub::window(config)? } else { Some(WINDOW_DEFAULT) };
    hub::windows(config, &mut spec, window, |layer| layer.is_multiple_of(2))?;
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &gemma::HABITS)?;
    let scale = header_scale(&spec, 46);
    let soft_cap = header.cap("attn_logit_softcapping")?;
    sandwich(&mut spec, scale, soft_cap);
    if let Some(head) = &mut spec.head {
        head.soft_cap = header.cap("final_logit_softcapping")?;
    }
    header::windows(header, &mut spec, |layer| layer.is_multiple_of(2))?;
    Ok(spec)
}

/// What Gemma 2 and 3 have in common.
pub(super) fn sandwich(spec: &mut ModelSpec, scale: f32, soft_cap: Option<f32>) {
    gemma::scaled(spec);
    for layer in &mut spec.layers {
        layer.order = Order::Sandwich;
        layer.attention.scale = scale;
        layer.attention.soft_cap = soft_cap;
    }
}

/// Headers do not say what queries are scaled by: the 27B model of either generation, known by its
/// layers, divides by the root of `hidden / heads`, the others by that of the head size.
pub(super) fn header_scale(spec: &ModelSpec, layers_27b: usize) -> f32 {
    let attention = &spec.layers[0].attention;
    let large = spec.layers.len() == layers_27b;
    let scalar = if large { spec.hidden / attention.heads } else { attention.head_dim };
    (scalar as f32).sqrt().recip()
}

pub(super) fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    match role {
        Role::Layer(layer, part) => names::post_norms(layer, part),
        _ => None,
    }
}
