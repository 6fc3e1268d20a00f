//! Nomic BERT: BERT with a rotation for positions, a gated MLP and no biases beside its norms
//! (arXiv 2402.01613).
//!
//! Its files come in two spellings: GPT-2's, as published, and the transformers library's.

use kernels::{Activation, NormKind};

use super::decoder::{
    CONTEXT_MAX, HEADS_MAX, HIDDEN_MAX, LAYERS_MAX, Sizes, VOCAB_MAX, layer_norm,
};
use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, bert, hub, names, rope};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "nomic_bert",
    architectures: &["NomicBertModel"],
    model_types: &["nomic_bert"],
    gguf: &["nomic-bert"],
    own_code: true,
    from_config,
    from_header,
    hub_source,
    gguf_source,
    prefixes: &["", "nomic_bert.", "bert."],
    spare: bert::spare,
};

const THETA: f64 = 1000.0;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec =
        if config.get("n_embd").is_some() { published(config)? } else { native(config)? };
    bert::behind(&mut spec);
    spec.embedding.types = config.count("type_vocab_size", CONTEXT_MAX)?.or(Some(2));
    Ok(spec)
}

/// The transformers library's spelling.
fn native(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 2048,
        theta: THETA,
        norm: (NormKind::Layer, true),
        eps: ("layer_norm_eps", 1e-12),
        tied: true,
        ..hub::LLAMA
    };
    hub::decoder(config, FAMILY.name, &spelling)
}

/// GPT-2's spelling, with what the published files add to it.
fn published(config: &Fields) -> Result<ModelSpec, LoadError> {
    for field in [
        "causal",
        "prenorm",
        "use_rms_norm",
        "qkv_proj_bias",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "parallel_block",
        "rotary_emb_interleaved",
        "scale_attn_by_inverse_layer_idx",
    ] {
        if hub::flag(config, field)? {
            return Err(config.wrong(field, "is not supported in this family"));
        }
    }
    let hidden = config.need("n_embd", HIDDEN_MAX)?;
    let heads = config.need("n_head", HEADS_MAX)?;
    if !hidden.is_multiple_of(2 * heads) {
        let problem = format!("{heads} heads do not share out pairs of {hidden} elements evenly");
        return Err(config.wrong("n_head", &problem));
    }
    if config.word("activation_function")? != Some("swiglu") {
        return Err(config.wrong("activation_function", "only swiglu is supported"));
    }
    if config.number("rotary_emb_fraction", 0.0, 1.0)?.is_some_and(|share| share < 1.0) {
        return Err(config.wrong("rotary_emb_fraction", "only 1 is supported"));
    }
    // Beyond the trained positions the published code stretches its rotation; the context ends
    // there instead.
    hub::idle(config, &["rotary_scaling_factor"]);
    // How the published code computes the same.
    hub::idle(config, &["fused_bias_fc", "fused_dropout_add_ln", "use_flash_attn"]);
    hub::idle(config, &["dense_seq_output", "pad_vocab_size_multiple", "use_xentropy"]);
    hub::idle(config, &["scale_attn_weights"]);
    let positions = config.count("n_positions", CONTEXT_MAX)?.unwrap_or(2048);
    let trained = config.count("max_trained_positions", CONTEXT_MAX)?.unwrap_or(2048);
    let theta = config.number("rotary_emb_base", 1.0, rope::THETA_MAX)?.unwrap_or(THETA);
    let eps = config.number("layer_norm_epsilon", 0.0, 1.0)?.unwrap_or(1e-12);
    let sizes = Sizes {
        family: FAMILY.name,
        hidden,
        vocab: config.need("vocab_size", VOCAB_MAX)?,
        context: positions.min(trained),
        layers: config.need("n_layer", LAYERS_MAX)?,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        width: config.need("n_inner", HIDDEN_MAX)?,
        activation: Activation::Silu,
        norm: layer_norm(eps as f32, true),
        rope: rope::plain(theta, hidden / heads),
        tied: true,
    };
    Ok(sizes.decoder())
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits = Habits { norm: (NormKind::Layer, true), ..header::HALVES };
    let mut spec = header::stack(header, FAMILY.name, &habits)?;
    header::encoder_only(header)?;
    bert::behind(&mut spec);
    spec.embedding.types = header::types(header)?;
    Ok(spec)
}

/// The published names; the first of the two matrices beside each other is not the gate.
fn hub_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    let (layer, part) = match role {
        Role::EmbeddingNorm => return Some(Source::all("emb_ln.weight")),
        Role::EmbeddingNormBias => return Some(Source::all("emb_ln.bias")),
        Role::Layer(layer, part) => (layer, part),
        other => return bert::embeddings(other),
    };
    let name = |rest: &str| Source::all(format!("encoder.layers.{layer}.{rest}"));
    let rest = match part {
        P::AttentionOut => "attn.out_proj.weight",
        P::AttentionPostNorm => "norm1.weight",
        P::AttentionPostNormBias => "norm1.bias",
        P::Up => "mlp.fc11.weight",
        P::Gate => "mlp.fc12.weight",
        P::Down => "mlp.fc2.weight",
        P::MlpPostNorm => "norm2.weight",
        P::MlpPostNormBias => "norm2.bias",
        _ => {
            let fused = |ending: &str| name(&format!("attn.Wqkv.{ending}"));
            return names::fused_qkv(spec, layer, part, fused);
        }
    };
    Some(name(rest))
}

fn gguf_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let qkv = |ending: &str| names::gguf(layer, &format!("attn_qkv.{ending}"));
    names::fused_qkv(spec, layer, part, qkv).or_else(|| bert::gguf_source(spec, role))
}
