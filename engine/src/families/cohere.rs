//! Command R: attention and MLP beside each other behind one layer norm without bias, pairs of
//! neighbours turned, scaled logits.

use kernels::{HeadNorm, NormKind};

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::{HeadNormSpec, ModelSpec, Order};
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "cohere",
    architectures: &["CohereForCausalLM"],
    model_types: &["cohere"],
    gguf: &["command-r"],
    from_config,
    from_header,
    ..USUAL
};

/// Shared with Command R7B.
pub(super) const SPELLING: Spelling = Spelling {
    context: 8192,
    theta: 5e5,
    norm: (NormKind::Layer, false),
    eps: ("layer_norm_eps", 1e-5),
    tied: true,
    ..hub::LLAMA
};

/// Shared with Command R7B.
pub(super) const HABITS: Habits = Habits { norm: (NormKind::Layer, false), ..header::NEIGHBOURS };

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &SPELLING)?;
    hub::no_window(config, &spec)?;
    beside(config, &mut spec)?;
    if hub::flag(config, "use_qk_norm")? {
        head_norms(&mut spec);
    }
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &HABITS)?;
    header::no_window(header)?;
    header_beside(header, &mut spec)?;
    if header.dims("blk.0.attn_q_norm.weight").is_some() {
        head_norms(&mut spec);
    }
    Ok(spec)
}

/// What both generations have in common.
pub(super) fn beside(config: &Fields, spec: &mut ModelSpec) -> Result<(), LoadError> {
    hub::attention_bias(config, spec, false)?;
    let scale = config.number("logit_scale", 1e-6, 1e6)?.unwrap_or(0.0625);
    arrange(spec, scale as f32);
    Ok(())
}

/// As [`beside`], from a header.
pub(super) fn header_beside(header: &Header<'_>, spec: &mut ModelSpec) -> Result<(), LoadError> {
    let scale = header.factor("logit_scale")?;
    arrange(spec, scale);
    Ok(())
}

fn arrange(spec: &mut ModelSpec, scale: f32) {
    for rope in &mut spec.ropes {
        rope.interleaved = true;
    }
    for layer in &mut spec.layers {
        layer.order = Order::Parallel;
    }
    if let Some(head) = &mut spec.head {
        head.scale = scale;
    }
}

fn head_norms(spec: &mut ModelSpec) {
    let norm = HeadNormSpec {
        reach: HeadNorm::Each,
        kind: NormKind::Layer,
        own_weights: true,
        eps: spec.norm.eps,
        offset: 0.0,
    };
    for layer in &mut spec.layers {
        layer.attention.qk_norm = Some(norm);
    }
}
