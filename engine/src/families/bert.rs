//! BERT, RoBERTa and XLM-RoBERTa: encoders with learned positions, norms behind each sum, biases
//! everywhere (arXiv 1810.04805, 1907.11692, 1911.02116). Rerankers are the same below their head.

use kernels::{Activation, NormKind};

use super::decoder::CONTEXT_MAX;
use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Order, PositionSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const BERT: Family = Family {
    name: "bert",
    architectures: &["BertModel", "BertForSequenceClassification", "BertForMaskedLM"],
    model_types: &["bert"],
    gguf: &["bert"],
    from_config: |config| read(config, BERT.name, None),
    from_header,
    hub_source,
    gguf_source,
    prefixes: &["bert.", ""],
    spare,
    ..USUAL
};

pub(super) const ROBERTA: Family = Family {
    name: "roberta",
    architectures: &[
        "RobertaModel",
        "RobertaForSequenceClassification",
        "RobertaForMaskedLM",
        "XLMRobertaModel",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForMaskedLM",
    ],
    model_types: &["roberta", "xlm-roberta"],
    // Positions are counted from the one behind padding's.
    from_config: |config| read(config, ROBERTA.name, Some(1)),
    hub_source,
    prefixes: &["roberta.", ""],
    spare,
    ..USUAL
};

const SPELLING: Spelling = Spelling {
    context: 512,
    norm: (NormKind::Layer, true),
    eps: ("layer_norm_eps", 1e-12),
    activation: ("hidden_act", Activation::Gelu),
    tied: true,
    ..hub::LLAMA
};

fn read(
    config: &Fields,
    family: &'static str,
    padding: Option<u32>,
) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, family, &SPELLING)?;
    absolute(config)?;
    let offset = match padding {
        Some(default) => config.whole("pad_token_id")?.unwrap_or(default) as usize + 1,
        None => 0,
    };
    let rows = spec.context;
    if offset >= rows {
        let problem = format!("{rows} leaves no position behind padding's, {offset}");
        return Err(config.wrong("max_position_embeddings", &problem));
    }
    spec.context = rows - offset;
    spec.embedding.positions = Some(PositionSpec { rows, offset });
    spec.embedding.types = match config.whole("type_vocab_size")? {
        Some(0) => None,
        Some(_) => config.count("type_vocab_size", CONTEXT_MAX)?,
        None => Some(2),
    };
    encoder(&mut spec);
    Ok(spec)
}

/// Refuses decoders and relative positions.
pub(super) fn absolute(config: &Fields) -> Result<(), LoadError> {
    if config.word("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(config.wrong("position_embedding_type", "only absolute is supported"));
    }
    if hub::flag(config, "is_decoder")? {
        return Err(config.wrong("is_decoder", "is not supported in this family"));
    }
    Ok(())
}

/// What all BERTs have in common: no rotation, no gate, biases, norms behind each sum.
pub(super) fn encoder(spec: &mut ModelSpec) {
    behind(spec);
    spec.ropes.clear();
    for layer in &mut spec.layers {
        layer.attention.rope = None;
        layer.attention.qkv_bias = true;
        layer.attention.out_bias = true;
    }
    hub::each_mlp(spec, |mlp| {
        mlp.gated = false;
        mlp.bias = true;
    });
}

/// An encoder with norms behind each sum, and one behind the embedding.
pub(super) fn behind(spec: &mut ModelSpec) {
    spec.causal = false;
    spec.head = None;
    spec.final_norm = false;
    spec.embedding.norm = true;
    for layer in &mut spec.layers {
        layer.order = Order::Post;
    }
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits =
        Habits { norm: (NormKind::Layer, true), activation: Activation::Gelu, ..header::HALVES };
    let mut spec = header::stack(header, BERT.name, &habits)?;
    header::encoder_only(header)?;
    encoder(&mut spec);
    // Converters leave out the rows below RoBERTa's first position.
    let rows = header::rows(header, "position_embd.weight")?;
    spec.context = spec.context.min(rows);
    spec.embedding.positions = Some(PositionSpec { rows, offset: 0 });
    spec.embedding.types = header::types(header)?;
    Ok(spec)
}

fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    let (layer, part) = match role {
        Role::Layer(layer, part) => (layer, part),
        other => return embeddings(other),
    };
    let rest = match part {
        P::Query => "attention.self.query.weight",
        P::QueryBias => "attention.self.query.bias",
        P::Key => "attention.self.key.weight",
        P::KeyBias => "attention.self.key.bias",
        P::Value => "attention.self.value.weight",
        P::ValueBias => "attention.self.value.bias",
        P::AttentionOut => "attention.output.dense.weight",
        P::AttentionOutBias => "attention.output.dense.bias",
        P::AttentionPostNorm => "attention.output.LayerNorm.weight",
        P::AttentionPostNormBias => "attention.output.LayerNorm.bias",
        P::Up => "intermediate.dense.weight",
        P::UpBias => "intermediate.dense.bias",
        P::Down => "output.dense.weight",
        P::DownBias => "output.dense.bias",
        P::MlpPostNorm => "output.LayerNorm.weight",
        P::MlpPostNormBias => "output.LayerNorm.bias",
        _ => return None,
    };
    Some(Source::all(format!("encoder.layer.{layer}.{rest}")))
}

/// The tables before the layers, as all BERTs name them.
pub(super) fn embeddings(role: Role) -> Option<Source> {
    Some(Source::all(match role {
        Role::Embedding => "embeddings.word_embeddings.weight",
        Role::PositionEmbedding => "embeddings.position_embeddings.weight",
        Role::TypeEmbedding => "embeddings.token_type_embeddings.weight",
        Role::EmbeddingNorm => "embeddings.LayerNorm.weight",
        Role::EmbeddingNormBias => "embeddings.LayerNorm.bias",
        _ => return None,
    }))
}

/// The norms behind the blocks in GGUF files of encoders.
pub(super) fn gguf_source(_: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let rest = match part {
        P::AttentionPostNorm => "attn_output_norm.weight",
        P::AttentionPostNormBias => "attn_output_norm.bias",
        P::MlpPostNorm => "layer_output_norm.weight",
        P::MlpPostNormBias => "layer_output_norm.bias",
        _ => return None,
    };
    Some(super::names::gguf(layer, rest))
}

/// Heads for guessing words and for classes, and the numbers 0, 1, 2, ... as a tensor.
pub(super) fn spare(_: &ModelSpec, name: &str) -> bool {
    let heads = ["pooler.", "cls.", "classifier.", "lm_head.", "pre_classifier.", "vocab_"];
    heads.iter().any(|head| name.starts_with(head) || name.contains(&format!(".{head}")))
        || name.ends_with("position_ids")
}
