//! EXAONE 4: norms behind the blocks and on each head; where there are windows, the layers
//! without one are not rotated (arXiv 2507.11407).

use super::decoder::{LAYERS_MAX, each_head, set_qk_norm};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, gemma2, hub};
use crate::config::Fields;
use crate::spec::{ModelSpec, Order};
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "exaone4",
    architectures: &["Exaone4ForCausalLM"],
    model_types: &["exaone4"],
    gguf: &["exaone4"],
    hub_source: gemma2::hub_source,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { eps: ("rms_norm_eps", 1e-5), ..hub::LLAMA };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    let window = if config.spells("sliding_window") { hub::window(config)? } else { Some(4096) };
    // Published files write the pattern as letters, and list the layers as well.
    let every = match config.get("sliding_window_pattern") {
        Some(value) if value.is_string() && config.get("layer_types").is_some() => 4,
        _ => config.count("sliding_window_pattern", LAYERS_MAX)?.unwrap_or(4),
    };
    hub::windows(config, &mut spec, window, |layer| {
        window.is_some() && !(layer + 1).is_multiple_of(every)
    })?;
    arrange(&mut spec);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::HALVES)?;
    header::windows(header, &mut spec, |layer| !(layer + 1).is_multiple_of(4))?;
    arrange(&mut spec);
    Ok(spec)
}

fn arrange(spec: &mut ModelSpec) {
    set_qk_norm(spec, each_head);
    let windows = spec.layers.iter().any(|layer| layer.attention.window.is_some());
    for layer in &mut spec.layers {
        layer.order = Order::After;
        let turned = !windows || layer.attention.window.is_some();
        layer.attention.rope = Some(0).filter(|_| turned);
    }
}
