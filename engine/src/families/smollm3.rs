//! SmolLM 3: Llama that leaves every fourth layer unrotated.

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "smollm3",
    architectures: &["SmolLM3ForCausalLM"],
    model_types: &["smollm3"],
    gguf: &["smollm3"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling =
        Spelling { context: 32_768, kv_heads: Some(4), theta: 2e6, tied: true, ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, false)?;
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| mlp.bias = bias);
    let turned = turned(config, spec.layers.len())?;
    for (layer, turned) in spec.layers.iter_mut().zip(&turned) {
        layer.attention.rope = Some(0).filter(|_| *turned);
    }
    let window = hub::window(config)?;
    if hub::flag(config, "use_sliding_window")? {
        hub::windows(config, &mut spec, window, |layer| window.is_some() && !turned[layer])?;
    } else {
        hub::one_window(config, &mut spec, None)?;
    }
    hub::idle(config, &["max_window_layers"]);
    Ok(spec)
}

/// `no_rope_layers` has a 1 for each layer that is rotated, whatever its name says.
fn turned(config: &Fields, layers: usize) -> Result<Vec<bool>, LoadError> {
    let interval = config.count("no_rope_layer_interval", layers.max(1000))?.unwrap_or(4);
    let Some(listed) = config.numbers("no_rope_layers", 0.0, 1.0)? else {
        return Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect());
    };
    if listed.len() != layers {
        let problem = format!("has {} entries for {layers} layers", listed.len());
        return Err(config.wrong("no_rope_layers", &problem));
    }
    Ok(listed.into_iter().map(|turned| turned > 0.5).collect())
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header::no_window(header)?;
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        layer.attention.rope = Some(0).filter(|_| !(index + 1).is_multiple_of(4));
    }
    Ok(spec)
}
