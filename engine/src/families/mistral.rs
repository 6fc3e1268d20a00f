//! Mistral: Llama with a sliding window in every layer, where the config has one
//! (arXiv 2310.06825).

use super::hub::Defaults;
use super::{Family, header, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    architecture: "MistralForCausalLM",
    // Converters write Mistral models as llama; this name is kept for those that do not.
    gguf: "mistral",
    from_config,
    from_header,
};

/// The window of a config.json that does not spell one; an explicit null means none.
const WINDOW_DEFAULT: u32 = 4096;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let defaults = Defaults { context: 131_072, kv_heads: Some(8), head_dim: None };
    let mut decoder = hub::decoder(config, FAMILY.name, &defaults)?;
    let window =
        if config.spells("sliding_window") { hub::window(config)? } else { Some(WINDOW_DEFAULT) };
    decoder.windows = vec![window; decoder.layers];
    hub::check_layer_types(config, &decoder.windows)?;
    Ok(decoder.build())
}

fn from_header(header: &Gguf) -> Result<ModelSpec, LoadError> {
    let mut decoder = header::decoder(header, FAMILY.name)?;
    decoder.rope.interleaved = true;
    decoder.windows = header::window(header, &decoder)?;
    Ok(decoder.build())
}
