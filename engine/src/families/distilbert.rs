//! DistilBERT: BERT with half of its layers, no token types, and names of its own
//! (arXiv 1910.01108).

use kernels::Activation;

use super::decoder::{
    CONTEXT_MAX, HEADS_MAX, HIDDEN_MAX, LAYERS_MAX, Sizes, VOCAB_MAX, layer_norm,
};
use super::{Family, USUAL, bert, hub, rope};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, PositionSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "distilbert",
    architectures: &[
        "DistilBertModel",
        "DistilBertForSequenceClassification",
        "DistilBertForMaskedLM",
    ],
    model_types: &["distilbert"],
    from_config,
    hub_source,
    prefixes: &["distilbert.", ""],
    spare: bert::spare,
    ..USUAL
};

const NORM_EPS: f32 = 1e-12;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    bert::absolute(config)?;
    let hidden = config.need("dim", HIDDEN_MAX)?;
    let heads = config.need("n_heads", HEADS_MAX)?;
    if !hidden.is_multiple_of(heads) {
        let problem = format!("{heads} heads do not share out dim {hidden} evenly");
        return Err(config.wrong("n_heads", &problem));
    }
    let rows = config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(512);
    // A table of sines is stored like a learned one.
    hub::idle(config, &["sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings"]);
    let mut spec = Sizes {
        family: FAMILY.name,
        hidden,
        vocab: config.need("vocab_size", VOCAB_MAX)?,
        context: rows,
        layers: config.need("n_layers", LAYERS_MAX)?,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        width: config.need("hidden_dim", HIDDEN_MAX)?,
        activation: hub::activation(config, "activation")?.unwrap_or(Activation::Gelu),
        norm: layer_norm(NORM_EPS, true),
        rope: rope::plain(rope::THETA_DEFAULT, 2),
        tied: true,
    }
    .decoder();
    bert::encoder(&mut spec);
    spec.embedding.positions = Some(PositionSpec { rows, offset: 0 });
    Ok(spec)
}

fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    let (layer, part) = match role {
        Role::Layer(layer, part) => (layer, part),
        other => return bert::embeddings(other),
    };
    let rest = match part {
        P::Query => "attention.q_lin.weight",
        P::QueryBias => "attention.q_lin.bias",
        P::Key => "attention.k_lin.weight",
        P::KeyBias => "attention.k_lin.bias",
        P::Value => "attention.v_lin.weight",
        P::ValueBias => "attention.v_lin.bias",
        P::AttentionOut => "attention.out_lin.weight",
        P::AttentionOutBias => "attention.out_lin.bias",
        P::AttentionPostNorm => "sa_layer_norm.weight",
        P::AttentionPostNormBias => "sa_layer_norm.bias",
        P::Up => "ffn.lin1.weight",
        P::UpBias => "ffn.lin1.bias",
        P::Down => "ffn.lin2.weight",
        P::DownBias => "ffn.lin2.bias",
        P::MlpPostNorm => "output_layer_norm.weight",
        P::MlpPostNormBias => "output_layer_norm.bias",
        _ => return None,
    };
    Some(Source::all(format!("transformer.layer.{layer}.{rest}")))
}
