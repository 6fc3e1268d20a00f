//! Granite 3: Llama with a factor at the embedding, the scores, the blocks and the logits, all
//! chosen so that a width can be changed without training anew (arXiv 2203.03466).

use super::header::{self, Header};
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "granite",
    architectures: &["GraniteForCausalLM"],
    model_types: &["granite"],
    gguf: &["granite"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &hub::LLAMA)?;
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| mlp.bias = bias);
    factors(config, &mut spec)?;
    Ok(spec)
}

/// The four factors, and biases of attention.
pub(super) fn factors(config: &Fields, spec: &mut ModelSpec) -> Result<(), LoadError> {
    hub::attention_bias(config, spec, false)?;
    hub::no_window(config, spec)?;
    spec.embedding.scale = hub::factor(config, "embedding_multiplier")?;
    if let Some(head) = &mut spec.head {
        head.scale = hub::factor(config, "logits_scaling")?.recip();
    }
    let scale = hub::factor(config, "attention_multiplier")?;
    let residual = hub::factor(config, "residual_multiplier")?;
    for layer in &mut spec.layers {
        layer.attention.scale = scale;
        layer.residual_scale = residual;
    }
    Ok(())
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header_factors(header, &mut spec)?;
    Ok(spec)
}

/// As [`factors`], from a header.
pub(super) fn header_factors(header: &Header<'_>, spec: &mut ModelSpec) -> Result<(), LoadError> {
    header::no_window(header)?;
    spec.embedding.scale = header.factor("embedding_scale")?;
    if let Some(head) = &mut spec.head {
        head.scale = header.factor("logit_scale")?.recip();
    }
    let scale = header.number("attention.scale", 1e-6, 1e6)?;
    let residual = header.factor("residual_scale")?;
    // A file that says that its rotation was not trained has none.
    let turned = header.number("rope.scaling.finetuned", 0.0, 1.0)? != Some(0.0);
    for layer in &mut spec.layers {
        layer.attention.scale = scale.map_or(layer.attention.scale, |scale| scale as f32);
        layer.attention.rope = layer.attention.rope.filter(|_| turned);
        layer.residual_scale = residual;
    }
    Ok(())
}
