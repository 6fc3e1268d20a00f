//! GLM-4.5 and 4.6: experts chosen by sigmoids with a correction, a dense first layer, half of
//! each head turned (arXiv 2508.06471).

use kernels::RouterScore;

use super::decoder::{LAYERS_MAX, each_head, set_qk_norm};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, experts, hub, names};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "glm4_moe",
    architectures: &["Glm4MoeForCausalLM"],
    model_types: &["glm4_moe"],
    gguf: &["glm4moe"],
    gguf_source,
    spare: names::beyond,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 131_072,
        kv_heads: Some(8),
        rotary: 0.5,
        eps: ("rms_norm_eps", 1e-5),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    let bias = hub::flag(config, "attention_bias")?;
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
    }
    if hub::flag(config, "use_qk_norm")? {
        set_qk_norm(&mut spec, each_head);
    }
    let mut mixture = experts::from_config(config, &["n_routed_experts"], "moe_intermediate_size")?;
    mixture.shared = experts::shared(config, mixture.width, 1)?;
    mixture.router.score = RouterScore::Sigmoid;
    mixture.router.correction = true;
    mixture.router.normalise = experts::normalise(config, true)?;
    mixture.router.scale = experts::scale(config)?;
    mixture.router.groups = experts::groups(config, &mixture, (1, 1), true)?;
    let first = config.whole("first_k_dense_replace")?.unwrap_or(1) as usize;
    experts::place(&mut spec, &mixture, |layer| layer >= first);
    // Layers that guess tokens ahead lie behind the model's; see `spare`.
    hub::idle(config, &["num_nextn_predict_layers"]);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    let ahead = header.some("nextn_predict_layers", LAYERS_MAX)?.unwrap_or(0);
    spec.layers.truncate(spec.layers.len().saturating_sub(ahead).max(1));
    if header.dims("blk.0.attn_q_norm.weight").is_some() {
        set_qk_norm(&mut spec, each_head);
    }
    let mut mixture = experts::from_header(header, spec.layers[0].mlp.width())?;
    experts::finish(header, &mut mixture)?;
    mixture.router.score = RouterScore::Sigmoid;
    mixture.router.correction = true;
    let first = header.some("leading_dense_block_count", LAYERS_MAX)?.unwrap_or(0);
    experts::place(&mut spec, &mixture, |layer| layer >= first);
    Ok(spec)
}

/// The norm before the MLP goes by the name of the one behind attention.
pub(super) fn gguf_source(_: &ModelSpec, role: Role) -> Option<Source> {
    match role {
        Role::Layer(layer, P::MlpNorm) => Some(names::gguf(layer, "post_attention_norm.weight")),
        _ => None,
    }
}
