//! DeepSeek V3 and R1, Kimi K2 and Moonlight: V2 with experts chosen by sigmoids and a learned
//! correction (arXiv 2412.19437, 2507.20534).

use kernels::RouterScore;

use super::hub::Spelling;
use super::{Family, USUAL, deepseek2, experts, hub, names};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "deepseek_v3",
    architectures: &["DeepseekV3ForCausalLM"],
    model_types: &["deepseek_v3", "kimi_k2"],
    own_code: true,
    hub_source: deepseek2::hub_source,
    spare: names::beyond,
    from_config,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { context: 4096, ..deepseek2::SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    deepseek2::latent(config, &mut spec)?;
    hub::no_window(config, &spec)?;
    let halves = config.flag("rope_interleave")? == Some(false);
    for rope in &mut spec.ropes {
        rope.interleaved = !halves;
    }
    let mut mixture = deepseek2::mixture(config, "sigmoid")?;
    if config.word("topk_method")?.is_some_and(|found| found != "noaux_tc") {
        return Err(config.wrong("topk_method", "only noaux_tc is supported"));
    }
    // Where V2 has two shared experts unless told otherwise, V3 has one.
    mixture.shared = experts::shared(config, mixture.width, 1)?;
    mixture.router.score = RouterScore::Sigmoid;
    mixture.router.correction = true;
    mixture.router.normalise = experts::normalise(config, true)?;
    if config.get("routed_scaling_factor").is_none() {
        mixture.router.scale = 2.5;
    }
    mixture.router.groups = experts::groups(config, &mixture, (8, 4), true)?;
    let first = config.whole("first_k_dense_replace")?.unwrap_or(3) as usize;
    experts::place(&mut spec, &mixture, |layer| layer >= first);
    // Layers that guess tokens ahead lie behind the model's; see `spare`.
    hub::idle(config, &["num_nextn_predict_layers", "num_mtp_layers"]);
    Ok(spec)
}
