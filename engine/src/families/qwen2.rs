//! Qwen 2 and 2.5: Llama with biases on q, k and v, and windows in the upper layers when the
//! config turns them on (arXiv 2407.10671).

use super::hub::Defaults;
use super::{Family, header, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architecture: "Qwen2ForCausalLM",
    gguf: "qwen2",
    from_config,
    from_header,
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let defaults = Defaults { context: 32_768, kv_heads: Some(32), head_dim: None };
    let mut decoder = hub::decoder(config, FAMILY.name, &defaults)?;
    decoder.qkv_bias = true;
    decoder.windows = hub::upper_windows(config, decoder.layers)?;
    Ok(decoder.build())
}

fn from_header(header: &Gguf) -> Result<ModelSpec, LoadError> {
    let mut decoder = header::decoder(header, FAMILY.name)?;
    decoder.qkv_bias = true;
    header::no_window(header)?;
    Ok(decoder.build())
}
