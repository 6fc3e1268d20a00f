//! Qwen 1.5 and 2 with experts: many small ones, and a shared one behind a switch
//! (arXiv 2407.10671).

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, experts, hub, names};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Role, SharedSpec};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "qwen2_moe",
    architectures: &["Qwen2MoeForCausalLM"],
    model_types: &["qwen2_moe"],
    gguf: &["qwen2moe"],
    hub_source,
    from_config,
    from_header,
    ..USUAL
};

const SHARED_MAX: usize = super::decoder::HIDDEN_MAX;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 32_768, kv_heads: Some(16), ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    let bias = config.flag("qkv_bias")?.unwrap_or(true);
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
    }
    hub::upper_windows(config, &mut spec)?;
    let mut mixture = experts::from_config(
        config,
        &["num_experts", "num_local_experts"],
        "moe_intermediate_size",
    )?;
    mixture.router.normalise = experts::normalise(config, false)?;
    let width = config.need("shared_expert_intermediate_size", SHARED_MAX)?;
    mixture.shared = Some(SharedSpec { width, switch: true });
    let sparse = experts::sparse(config, spec.layers.len())?;
    experts::place(&mut spec, &mixture, |layer| sparse[layer]);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    let dense = spec.layers[0].mlp.width();
    let mut mixture = experts::from_header(header, dense)?;
    let width = header.some("expert_shared_feed_forward_length", SHARED_MAX)?.unwrap_or(dense);
    mixture.shared = Some(SharedSpec { width, switch: true });
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}

fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let rest = match part {
        P::SharedGate => "gate_proj",
        P::SharedUp => "up_proj",
        P::SharedDown => "down_proj",
        _ => return None,
    };
    Some(names::hub(layer, &format!("mlp.shared_expert.{rest}.weight")))
}
