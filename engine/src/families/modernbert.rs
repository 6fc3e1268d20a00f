//! ModernBERT: an encoder with norms before the blocks, a fused GELU gate, and windows in two of
//! three layers, which turn faster than the others (arXiv 2412.13663).

use kernels::{Activation, NormKind};

use super::decoder::{CONTEXT_MAX, LAYERS_MAX};
use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, bert, gemma3, header_rope, hub, names, phi3, rope};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "modernbert",
    architectures: &[
        "ModernBertModel",
        "ModernBertForSequenceClassification",
        "ModernBertForMaskedLM",
    ],
    model_types: &["modernbert"],
    gguf: &["modern-bert"],
    from_config,
    from_header,
    hub_source,
    gguf_source,
    spare,
    ..USUAL
};

const THETA_LOCAL: f64 = 10_000.0;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let bias = hub::flag(config, "norm_bias")?;
    let global = config.number("global_rope_theta", 1.0, rope::THETA_MAX)?;
    let spelling = Spelling {
        context: 8192,
        theta: global.unwrap_or(160_000.0),
        norm: (NormKind::Layer, bias),
        eps: ("norm_eps", 1e-5),
        activation: ("hidden_activation", Activation::Gelu),
        tied: true,
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    bert::absolute(config)?;
    // Published files repeat the epsilon under BERT's name.
    hub::idle(config, &["layer_norm_eps"]);
    let base = hub::base(&spelling, spec.layers[0].attention.head_dim, spec.context);
    let base = rope::Base { theta: THETA_LOCAL, ..base };
    spec.ropes.push(rope::local(config, "local_rope_theta", &base)?);
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| mlp.bias = bias);
    hub::attention_bias(config, &mut spec, false)?;
    let every = config.count("global_attn_every_n_layers", LAYERS_MAX)?.unwrap_or(3);
    let reach = config.count("local_attention", CONTEXT_MAX)?.unwrap_or(128);
    hub::windows(config, &mut spec, window(reach), |layer| !layer.is_multiple_of(every))?;
    arrange(&mut spec);
    Ok(spec)
}

/// The files say how far windows reach on both sides together.
fn window(reach: usize) -> Option<u32> {
    Some(reach as u32 / 2 + 1)
}

/// Norms before the blocks, but for the first layer, whose input comes from a norm.
fn arrange(spec: &mut ModelSpec) {
    spec.causal = false;
    spec.head = None;
    spec.embedding.norm = true;
    spec.layers[0].attention_norm = false;
    gemma3::windows_turn(spec);
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let activation = match header.text("hidden_activation")? {
        None | Some("gelu") => Activation::Gelu,
        Some("silu") => Activation::Silu,
        Some(_) => {
            return Err(header.wrong("hidden_activation", "only gelu and silu are supported"));
        }
    };
    let habits = Habits { norm: (NormKind::Layer, false), activation, ..header::HALVES };
    let mut spec = header::stack(header, FAMILY.name, &habits)?;
    header::encoder_only(header)?;
    header::windows_from(
        header,
        &mut spec,
        |layer| !layer.is_multiple_of(3),
        |layer, every| !layer.is_multiple_of(every),
    )?;
    for layer in &mut spec.layers {
        layer.attention.window = layer.attention.window.and_then(|reach| window(reach as usize));
    }
    let head_dim = spec.layers[0].attention.head_dim;
    spec.ropes.push(header_rope::local(header, head_dim, THETA_LOCAL)?);
    header.idle(&["attention.layer_norm_rms_epsilon"]);
    arrange(&mut spec);
    Ok(spec)
}

fn hub_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    let (layer, part) = match role {
        Role::Embedding => return Some(Source::all("embeddings.tok_embeddings.weight")),
        Role::EmbeddingNorm => return Some(Source::all("embeddings.norm.weight")),
        Role::EmbeddingNormBias => return Some(Source::all("embeddings.norm.bias")),
        Role::FinalNorm => return Some(Source::all("final_norm.weight")),
        Role::FinalNormBias => return Some(Source::all("final_norm.bias")),
        Role::Layer(layer, part) => (layer, part),
        _ => return None,
    };
    let rest = match part {
        P::AttentionNorm => "attn_norm.weight",
        P::AttentionNormBias => "attn_norm.bias",
        P::AttentionOut => "attn.Wo.weight",
        P::AttentionOutBias => "attn.Wo.bias",
        P::MlpNorm => "mlp_norm.weight",
        P::MlpNormBias => "mlp_norm.bias",
        P::Down => "mlp.Wo.weight",
        P::DownBias => "mlp.Wo.bias",
        _ => {
            let qkv = |ending: &str| names::hub(layer, &format!("attn.Wqkv.{ending}"));
            let gate = |ending: &str| names::hub(layer, &format!("mlp.Wi.{ending}"));
            return names::fused_qkv(spec, layer, part, qkv)
                .or_else(|| names::fused_gate_up(spec, layer, part, gate));
        }
    };
    Some(names::hub(layer, rest))
}

fn gguf_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    phi3::gguf_source(spec, role)
}

/// Heads for guessing words and for classes.
fn spare(_: &ModelSpec, name: &str) -> bool {
    ["head.", "decoder.", "classifier.", "cls."].iter().any(|head| name.starts_with(head))
}
