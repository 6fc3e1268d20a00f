//! Qwen 3: an RMS norm on each query and key head, no biases, its own head size
//! (arXiv 2505.09388).

use super::hub::Defaults;
use super::{Family, header, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architecture: "Qwen3ForCausalLM",
    gguf: "qwen3",
    from_config,
    from_header,
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let defaults = Defaults { context: 32_768, kv_heads: Some(32), head_dim: Some(128) };
    let mut decoder = hub::decoder(config, FAMILY.name, &defaults)?;
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    decoder.qkv_bias = attention_bias;
    decoder.out_bias = attention_bias;
    decoder.qk_norm = true;
    decoder.windows = hub::upper_windows(config, decoder.layers)?;
    Ok(decoder.build())
}

fn from_header(header: &Gguf) -> Result<ModelSpec, LoadError> {
    let mut decoder = header::decoder(header, FAMILY.name)?;
    decoder.qk_norm = true;
    header::biases(header, &mut decoder);
    header::no_window(header)?;
    Ok(decoder.build())
}
