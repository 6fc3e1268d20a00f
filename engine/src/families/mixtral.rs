//! Mixtral: Mistral with experts in place of every MLP (arXiv 2401.04088). GGUF files of it are
//! written as `llama`.

use super::hub::Spelling;
use super::{Family, USUAL, experts, hub, names};
use crate::config::Fields;
use crate::spec::{ExpertPart as E, LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "mixtral",
    architectures: &["MixtralForCausalLM"],
    model_types: &["mixtral"],
    hub_source,
    from_config,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 131_072,
        kv_heads: Some(8),
        theta: 1e6,
        eps: ("rms_norm_eps", 1e-5),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    let window = hub::window(config)?;
    hub::one_window(config, &mut spec, window)?;
    let mut mixture = experts::from_config(config, &["num_local_experts"], "intermediate_size")?;
    mixture.router.normalise = true;
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}

fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    match role {
        Role::Layer(layer, P::Router) => Some(names::hub(layer, "block_sparse_moe.gate.weight")),
        Role::Expert(layer, expert, part) => {
            let matrix = match part {
                E::Gate => "w1",
                E::Down => "w2",
                E::Up => "w3",
                _ => return None,
            };
            Some(names::hub(layer, &format!("block_sparse_moe.experts.{expert}.{matrix}.weight")))
        }
        _ => None,
    }
}
