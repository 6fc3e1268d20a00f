//! Granite 3 with experts, which its files keep stacked, gate and up in one tensor.

use super::header::{self, Header};
use super::{Family, USUAL, experts, granite, hub, names};
use crate::config::Fields;
use crate::spec::{ExpertPart as E, LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Pick, Slab, Source};

pub(super) const FAMILY: Family = Family {
    name: "granite_moe",
    architectures: &["GraniteMoeForCausalLM"],
    model_types: &["granitemoe"],
    gguf: &["granitemoe"],
    hub_source,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &hub::LLAMA)?;
    granite::factors(config, &mut spec)?;
    let mut mixture = experts::from_config(config, &["num_local_experts"], "intermediate_size")?;
    mixture.router.normalise = true;
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    granite::header_factors(header, &mut spec)?;
    let mut mixture = experts::from_header(header, spec.layers[0].mlp.width())?;
    mixture.router.normalise = true;
    experts::place(&mut spec, &mixture, |_| true);
    Ok(spec)
}

fn hub_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    match role {
        Role::Layer(layer, P::Router) => {
            Some(names::hub(layer, "block_sparse_moe.router.layer.weight"))
        }
        Role::Expert(layer, expert, part) => {
            let crate::spec::MlpSpec::Experts(experts) = &spec.layers[layer].mlp else {
                return None;
            };
            let (first, rest) = match part {
                E::Gate => (Some(0), "input_linear"),
                E::Up => (Some(experts.width), "input_linear"),
                E::Down => (None, "output_linear"),
                _ => return None,
            };
            let of = 2 * experts.width;
            let name = names::hub(layer, &format!("block_sparse_moe.{rest}.weight")).name;
            let slab = Some(Slab { of: experts.count, index: expert });
            let pick = first.map_or(Pick::All, |first| Pick::Run { first, of });
            Some(Source { slab, pick, ..Source::all(name) })
        }
        _ => None,
    }
}
