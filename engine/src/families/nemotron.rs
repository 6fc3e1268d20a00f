//! Nemotron 4 and Minitron: layer norms stored minus one, an MLP without a gate and squared ReLU,
//! half of each head turned (arXiv 2402.16819).

use kernels::{Activation, NormKind};

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "nemotron",
    architectures: &["NemotronForCausalLM"],
    model_types: &["nemotron"],
    gguf: &["nemotron"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 4096,
        rotary: 0.5,
        norm: (NormKind::Layer, true),
        eps: ("norm_eps", 1e-5),
        activation: ("hidden_act", Activation::ReluSquared),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::no_window(config, &spec)?;
    hub::attention_bias(config, &mut spec, false)?;
    // The older name of `partial_rotary_factor`; files have both.
    hub::idle(config, &["rotary_percent"]);
    spec.norm.offset = 1.0;
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| {
        mlp.gated = false;
        mlp.bias = bias;
    });
    Ok(spec)
}

// Converters add the one to the norms.
fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits = Habits {
        norm: (NormKind::Layer, true),
        activation: Activation::ReluSquared,
        ..header::HALVES
    };
    let mut spec = header::decoder(header, FAMILY.name, &habits)?;
    header.idle(&["attention.layer_norm_rms_epsilon"]);
    header::no_window(header)?;
    hub::each_mlp(&mut spec, |mlp| mlp.gated = false);
    Ok(spec)
}
