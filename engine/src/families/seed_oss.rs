//! Seed-OSS: Llama with biases on q, k and v.

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, glm4_moe, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "seed_oss",
    architectures: &["SeedOssForCausalLM"],
    model_types: &["seed_oss"],
    gguf: &["seed_oss"],
    from_config,
    from_header,
    gguf_source: glm4_moe::gguf_source,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 524_288,
        kv_heads: Some(8),
        head_dim: ("head_dim", Some(128)),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::no_window(config, &spec)?;
    hub::attention_bias(config, &mut spec, true)?;
    let out_bias = hub::flag(config, "attention_out_bias")?;
    for layer in &mut spec.layers {
        layer.attention.out_bias = out_bias;
    }
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| mlp.bias = bias);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    Ok(spec)
}
