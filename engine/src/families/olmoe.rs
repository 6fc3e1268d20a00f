//! OLMoE: experts whose weights are not normalised, and norms over all queries and all keys
//! together (arXiv 2409.02060).

use super::decoder::{set_qk_norm, whole};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, experts, hub, olmo2};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "olmoe",
    architectures: &["OlmoeForCausalLM"],
    model_types: &["olmoe"],
    gguf: &["olmoe"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 4096, ..olmo2::SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, false)?;
    hub::no_window(config, &spec)?;
    set_qk_norm(&mut spec, whole);
    let counts = ["num_experts", "num_local_experts"];
    let mut mixture = experts::from_config(config, &counts, "intermediate_size")?;
    mixture.router.normalise = experts::normalise(config, false)?;
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::no_window(header)?;
    set_qk_norm(&mut spec, whole);
    let mixture = experts::from_header(header, spec.layers[0].mlp.width())?;
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}
