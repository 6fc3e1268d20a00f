//! Llama: grouped-query attention, gated SiLU MLP, RMS norms before both (arXiv 2302.13971,
//! 2407.21783). Many models of other names are published under this architecture.

use super::hub::Defaults;
use super::{Family, header, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architecture: "LlamaForCausalLM",
    gguf: "llama",
    from_config,
    from_header,
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let defaults = Defaults { context: 2048, kv_heads: None, head_dim: None };
    let mut decoder = hub::decoder(config, FAMILY.name, &defaults)?;
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    decoder.qkv_bias = attention_bias;
    decoder.out_bias = attention_bias;
    decoder.mlp_bias = config.flag("mlp_bias")?.unwrap_or(false);
    hub::no_window(config)?;
    Ok(decoder.build())
}

fn from_header(header: &Gguf) -> Result<ModelSpec, LoadError> {
    let mut decoder = header::decoder(header, FAMILY.name)?;
    // Converters reorder the rows of q and k so that rotated pairs are neighbours.
    decoder.rope.interleaved = true;
    header::biases(header, &mut decoder);
    decoder.windows = header::window(header, &decoder)?;
    Ok(decoder.build())
}
