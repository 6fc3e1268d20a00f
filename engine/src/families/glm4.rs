//! GLM-4-0414: GLM-4 with norms on both sides of the blocks.

use super::header::{self, Header};
use super::{Family, USUAL, glm, hub, phi3};
use crate::config::Fields;
use crate::spec::{ModelSpec, Order};
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "glm4",
    architectures: &["Glm4ForCausalLM"],
    model_types: &["glm4"],
    gguf: &["glm4"],
    hub_source: phi3::gate_up,
    gguf_source: phi3::gguf_gate_up,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &glm::SPELLING)?;
    glm::shape(config, &mut spec)?;
    sandwich(&mut spec);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header::no_window(header)?;
    sandwich(&mut spec);
    Ok(spec)
}

fn sandwich(spec: &mut ModelSpec) {
    for layer in &mut spec.layers {
        layer.order = Order::Sandwich;
    }
}
