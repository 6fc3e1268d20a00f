//! Qwen 3: an RMS norm on each query and key head, its own head size (arXiv 2505.09388).

use super::decoder::{each_head, set_qk_norm};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &["Qwen3ForCausalLM", "Qwen3ForSequenceClassification"],
    model_types: &["qwen3"],
    gguf: &["qwen3"],
    from_config,
    from_header,
    spare: hub::is_score,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 32_768,
        kv_heads: Some(32),
        head_dim: ("head_dim", Some(128)),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, false)?;
    hub::upper_windows(config, &mut spec)?;
    set_qk_norm(&mut spec, each_head);
    hub::score_for_head(config, &mut spec)?;
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    set_qk_norm(&mut spec, each_head);
    Ok(spec)
}
