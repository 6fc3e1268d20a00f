//! OLMo 2: norms behind the blocks only, and over all queries and all keys together
//! (arXiv 2501.00656). GGUF files of OLMo 3 carry the same name.

use super::decoder::{set_qk_norm, whole};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, gemma2, gemma3, header_rope, hub, rope};
use crate::config::Fields;
use crate::spec::{ModelSpec, Order};
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "olmo2",
    architectures: &["Olmo2ForCausalLM"],
    model_types: &["olmo2"],
    gguf: &["olmo2"],
    hub_source: gemma2::hub_source,
    from_config,
    from_header,
    ..USUAL
};

pub(super) const SPELLING: Spelling = Spelling { eps: ("rms_norm_eps", 1e-5), ..hub::LLAMA };

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &SPELLING)?;
    hub::attention_bias(config, &mut spec, false)?;
    hub::no_window(config, &spec)?;
    after(&mut spec);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    after(&mut spec);
    header::windows(header, &mut spec, |layer| !(layer + 1).is_multiple_of(4))?;
    // Layers with windows (OLMo 3) are not stretched.
    if spec.layers.iter().any(|layer| layer.attention.window.is_some()) {
        let head_dim = spec.layers[0].attention.head_dim;
        let theta = header.number("rope.freq_base", 1.0, rope::THETA_MAX)?;
        let theta = theta.unwrap_or(rope::THETA_DEFAULT);
        spec.ropes.push(header_rope::local(header, head_dim, theta)?);
        gemma3::windows_turn(&mut spec);
    }
    Ok(spec)
}

/// Norms behind the blocks, and of queries and keys.
pub(super) fn after(spec: &mut ModelSpec) {
    for layer in &mut spec.layers {
        layer.order = Order::After;
    }
    set_qk_norm(spec, whole);
}
