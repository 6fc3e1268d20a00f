//! Mistral and Ministral: Llama with a sliding window, where the config has one
//! (arXiv 2310.06825).

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    architectures: &["MistralForCausalLM", "MinistralForCausalLM"],
    model_types: &["mistral", "ministral"],
    gguf: &["mistral"],
    from_config,
    from_header,
    ..USUAL
};

/// The window of a config.json that does not spell one; an explicit null means none.
const WINDOW_DEFAULT: u32 = 4096;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 131_072, kv_heads: Some(8), ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    let window =
        if config.spells("sliding_window") { hub::window(config)? } else { Some(WINDOW_DEFAULT) };
    // Ministral lists which layers have it.
    hub::windows(config, &mut spec, window, |_| window.is_some())?;
    Ok(spec)
}

// Converters write Mistral models as llama; this name is kept for those that do not.
fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header::windows(header, &mut spec, |_| true)?;
    Ok(spec)
}
