//! Llama: grouped-query attention, gated SiLU MLP, RMS norms before both (arXiv 2302.13971,
//! 2407.21783). Many models of other names are published under this architecture.

use super::header::{self, Header};
use super::{Family, USUAL, experts, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM", "LlamaForSequenceClassification"],
    model_types: &["llama"],
    gguf: &["llama"],
    from_config,
    from_header,
    spare: hub::is_score,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &hub::LLAMA)?;
    hub::attention_bias(config, &mut spec, false)?;
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| mlp.bias = bias);
    hub::no_window(config, &spec)?;
    hub::score_for_head(config, &mut spec)?;
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header::windows(header, &mut spec, |_| true)?;
    // Converters write Mixtral under this name too.
    if header.some("expert_count", usize::MAX >> 12)?.is_some() {
        let mut mixture = experts::from_header(header, spec.layers[0].mlp.width())?;
        mixture.router.normalise = true;
        experts::place(&mut spec, &mixture, |_| true);
    }
    Ok(spec)
}
