//! Qwen 2 and 2.5: Llama with biases on q, k and v, and windows in the upper layers when the
//! config turns them on (arXiv 2407.10671).

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &["Qwen2ForCausalLM"],
    model_types: &["qwen2"],
    gguf: &["qwen2"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 32_768, kv_heads: Some(32), ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = true;
    }
    hub::upper_windows(config, &mut spec)?;
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    Ok(spec)
}
