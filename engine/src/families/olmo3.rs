//! OLMo 3: OLMo 2 with windows in three of four layers, and a stretched rotation in the fourth
//! (arXiv 2512.13961).

use super::hub::Spelling;
use super::{Family, USUAL, gemma2, gemma3, hub, olmo2, rope};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "olmo3",
    architectures: &["Olmo3ForCausalLM"],
    model_types: &["olmo3"],
    hub_source: gemma2::hub_source,
    from_config,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { theta: 5e5, ..olmo2::SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, false)?;
    olmo2::after(&mut spec);
    let window = if config.spells("sliding_window") { hub::window(config)? } else { Some(4096) };
    hub::windows(config, &mut spec, window, |layer| !(layer + 1).is_multiple_of(4))?;
    let base = hub::base(&spelling, spec.layers[0].attention.head_dim, spec.context);
    spec.ropes.push(rope::local(config, "rope_theta", &base)?);
    gemma3::windows_turn(&mut spec);
    Ok(spec)
}
