//! Arcee AFM: Llama with an MLP without a gate and squared ReLU.

use kernels::Activation;

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "arcee",
    architectures: &["ArceeForCausalLM"],
    model_types: &["arcee"],
    gguf: &["arcee"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 4096,
        eps: ("rms_norm_eps", 1e-5),
        activation: ("hidden_act", Activation::ReluSquared),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::attention_bias(config, &mut spec, false)?;
    hub::no_window(config, &spec)?;
    let bias = hub::flag(config, "mlp_bias")?;
    hub::each_mlp(&mut spec, |mlp| {
        mlp.gated = false;
        mlp.bias = bias;
    });
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits = Habits { activation: Activation::ReluSquared, ..header::NEIGHBOURS };
    let mut spec = header::decoder(header, FAMILY.name, &habits)?;
    header::no_window(header)?;
    hub::each_mlp(&mut spec, |mlp| mlp.gated = false);
    Ok(spec)
}
