//! Gemma: embeddings scaled by the root of their width, norm weights stored minus one, a GELU
//! gate (arXiv 2403.08295).

use kernels::Activation;

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "gemma",
    architectures: &["GemmaForCausalLM"],
    model_types: &["gemma"],
    gguf: &["gemma"],
    from_config,
    from_header,
    ..USUAL
};

/// How all Gemmas are spelled.
pub(super) const SPELLING: Spelling = Spelling {
    context: 8192,
    kv_heads: None,
    head_dim: ("head_dim", Some(256)),
    activation: ("hidden_activation", Activation::GeluTanh),
    tied: true,
    ..hub::LLAMA
};

/// What no Gemma's header says.
pub(super) const HABITS: Habits = Habits { activation: Activation::GeluTanh, ..header::HALVES };

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { kv_heads: Some(16), ..SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    scaled(&mut spec);
    spec.norm.offset = 1.0;
    hub::attention_bias(config, &mut spec, false)?;
    hub::no_window(config, &spec)?;
    // The published files say `gelu` and were trained with its approximation, whatever the newer
    // field says.
    let named = config.word("hidden_act")?.unwrap_or("gelu");
    if named != "gelu" {
        let activation = hub::activation(config, "hidden_act")?.unwrap_or(Activation::GeluTanh);
        hub::each_mlp(&mut spec, |mlp| mlp.activation = activation);
    } else {
        hub::each_mlp(&mut spec, |mlp| mlp.activation = Activation::GeluTanh);
    }
    Ok(spec)
}

// Converters add the one to the norms.
fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &HABITS)?;
    scaled(&mut spec);
    header::no_window(header)?;
    Ok(spec)
}

/// Embeddings times the root of their width.
pub(super) fn scaled(spec: &mut ModelSpec) {
    spec.embedding.scale = (spec.hidden as f32).sqrt();
}
