//! Command R7B and Command A: Command R with windows in three of four layers; the fourth is not
//! rotated (arXiv 2504.00698).

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, cohere, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "cohere2",
    architectures: &["Cohere2ForCausalLM"],
    model_types: &["cohere2"],
    gguf: &["cohere2"],
    from_config,
    from_header,
    ..USUAL
};

const PATTERN_MAX: usize = super::decoder::LAYERS_MAX;

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling { theta: 10_000.0, ..cohere::SPELLING };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    cohere::beside(config, &mut spec)?;
    for (field, wanted) in [
        ("position_embedding_type", "rope_gptj"),
        ("order_of_interleaved_layers", "local_attn_first"),
    ] {
        if config.word(field)?.is_some_and(|found| found != wanted) {
            return Err(config.wrong(field, &format!("only {wanted} is supported")));
        }
    }
    for field in ["use_gated_activation", "use_parallel_block"] {
        if config.flag(field)? == Some(false) {
            return Err(config.wrong(field, "models without it are not supported"));
        }
    }
    let pattern = config.count("sliding_window_pattern", PATTERN_MAX)?;
    let pattern = match config.count("layer_switch", PATTERN_MAX)? {
        Some(switch) if pattern.is_some_and(|pattern| pattern != switch) => {
            return Err(config.wrong("layer_switch", "contradicts sliding_window_pattern"));
        }
        switch => pattern.or(switch).unwrap_or(4),
    };
    let window = if config.spells("sliding_window") { hub::window(config)? } else { Some(4096) };
    hub::windows(config, &mut spec, window, |layer| !(layer + 1).is_multiple_of(pattern))?;
    only_windows_turn(&mut spec);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &cohere::HABITS)?;
    cohere::header_beside(header, &mut spec)?;
    header::windows(header, &mut spec, |layer| !(layer + 1).is_multiple_of(4))?;
    only_windows_turn(&mut spec);
    Ok(spec)
}

fn only_windows_turn(spec: &mut ModelSpec) {
    for layer in &mut spec.layers {
        layer.attention.rope = layer.attention.window.map(|_| 0);
    }
}
