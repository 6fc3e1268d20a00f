//! gpt-oss: attention with sinks, windows in every other layer, yarn, and experts with a clamped
//! gate whose matrices are stacked and, unless they are packed, transposed (arXiv 2508.10925).

use kernels::Activation;

use super::decoder::HIDDEN_MAX;
use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, experts, glm4_moe, hub, names};
use crate::config::Fields;
use crate::spec::{ExpertPart as E, ExpertsSpec, LayerPart as P, MlpSpec, ModelSpec, Role};
use crate::weights::{LoadError, Pick, Slab, Source};

pub(super) const FAMILY: Family = Family {
    name: "gpt_oss",
    architectures: &["GptOssForCausalLM"],
    model_types: &["gpt_oss"],
    gguf: &["gpt-oss"],
    hub_source,
    gguf_source: glm4_moe::gguf_source,
    from_config,
    from_header,
    ..USUAL
};

const ALPHA: f32 = 1.702;
const LIMIT: f32 = 7.0;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 131_072,
        kv_heads: Some(8),
        head_dim: ("head_dim", Some(64)),
        theta: 150_000.0,
        eps: ("rms_norm_eps", 1e-5),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, true)?;
    let window = if config.spells("sliding_window") { hub::window(config)? } else { Some(128) };
    hub::windows(config, &mut spec, window, |layer| layer.is_multiple_of(2))?;
    // Some files name the number of chosen experts twice.
    hub::idle(config, &["experts_per_token"]);
    let mixture = experts::from_config(config, &["num_local_experts"], "intermediate_size")?;
    let alpha = config.number("swiglu_alpha", 0.0, 100.0)?.map_or(ALPHA, |alpha| alpha as f32);
    let limit = config.number("swiglu_limit", 0.0, 1e6)?.map_or(LIMIT, |limit| limit as f32);
    shape(&mut spec, mixture, Activation::Clamped { alpha, limit });
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let width = header.need("expert_feed_forward_length", HIDDEN_MAX)?;
    let habits = Habits { truncate: false, ..header::HALVES };
    let mut spec = header::decoder(header, FAMILY.name, &habits)?;
    header::windows(header, &mut spec, |layer| layer.is_multiple_of(2))?;
    let mixture = experts::from_header(header, width)?;
    shape(&mut spec, mixture, Activation::Clamped { alpha: ALPHA, limit: LIMIT });
    Ok(spec)
}

/// Weights are the softmax over the chosen scores, which is that over all, normalised.
fn shape(spec: &mut ModelSpec, mut mixture: ExpertsSpec, activation: Activation) {
    mixture.bias = true;
    mixture.router.bias = true;
    mixture.router.normalise = true;
    experts::place(spec, &mixture, |_| true);
    for layer in &mut spec.layers {
        layer.attention.sinks = true;
        if let MlpSpec::Experts(experts) = &mut layer.mlp {
            experts.activation = activation;
        }
    }
}

/// Rows of gate and up alternate.
fn hub_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    match role {
        Role::Layer(layer, P::Router) => Some(names::hub(layer, "mlp.router.weight")),
        Role::Layer(layer, P::RouterBias) => Some(names::hub(layer, "mlp.router.bias")),
        Role::Expert(layer, expert, part) => {
            let MlpSpec::Experts(experts) = &spec.layers[layer].mlp else { return None };
            let (rest, pick, transposed) = match part {
                E::Gate => ("gate_up_proj", Pick::EveryOther { first: 0 }, true),
                E::Up => ("gate_up_proj", Pick::EveryOther { first: 1 }, true),
                E::Down => ("down_proj", Pick::All, true),
                E::GateBias => ("gate_up_proj_bias", Pick::EveryOther { first: 0 }, false),
                E::UpBias => ("gate_up_proj_bias", Pick::EveryOther { first: 1 }, false),
                E::DownBias => ("down_proj_bias", Pick::All, false),
            };
            let name = names::hub(layer, &format!("mlp.experts.{rest}")).name;
            let slab = Some(Slab { of: experts.count, index: expert });
            Some(Source { name, slab, pick, transposed })
        }
        _ => None,
    }
}
