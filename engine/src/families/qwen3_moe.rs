//! Qwen 3 with experts: many small ones, none of them shared (arXiv 2505.09388).

use super::decoder::{each_head, set_qk_norm};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, experts, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "qwen3_moe",
    architectures: &["Qwen3MoeForCausalLM"],
    model_types: &["qwen3_moe"],
    gguf: &["qwen3moe"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 32_768, kv_heads: Some(4), ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, false)?;
    set_qk_norm(&mut spec, each_head);
    hub::upper_windows(config, &mut spec)?;
    let mut mixture = experts::from_config(
        config,
        &["num_experts", "num_local_experts"],
        "moe_intermediate_size",
    )?;
    mixture.router.normalise = experts::normalise(config, false)?;
    let sparse = experts::sparse(config, spec.layers.len())?;
    experts::place(&mut spec, &mixture, |layer| sparse[layer]);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    set_qk_norm(&mut spec, each_head);
    let mut mixture = experts::from_header(header, spec.layers[0].mlp.width())?;
    mixture.router.normalise = true;
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}
