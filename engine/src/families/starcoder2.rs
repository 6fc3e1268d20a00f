//! StarCoder 2: layer norms, an MLP without a gate, biases everywhere, one window
//! (arXiv 2402.19173).

use kernels::{Activation, NormKind};

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub, names};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "starcoder2",
    architectures: &["Starcoder2ForCausalLM"],
    model_types: &["starcoder2"],
    gguf: &["starcoder2"],
    hub_source,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 4096,
        kv_heads: Some(2),
        norm: (NormKind::Layer, true),
        eps: ("norm_epsilon", 1e-5),
        activation: ("hidden_act", Activation::GeluTanh),
        tied: true,
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    for (field, wanted) in [("norm_type", "layer_norm"), ("mlp_type", "default")] {
        if config.word(field)?.is_some_and(|found| found != wanted) {
            return Err(config.wrong(field, &format!("only {wanted} is supported")));
        }
    }
    let bias = config.flag("use_bias")?.unwrap_or(true);
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
        layer.attention.out_bias = bias;
    }
    hub::each_mlp(&mut spec, |mlp| {
        mlp.gated = false;
        mlp.bias = bias;
    });
    let window = hub::window(config)?;
    hub::one_window(config, &mut spec, window)?;
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits = Habits {
        norm: (NormKind::Layer, true),
        activation: Activation::GeluTanh,
        ..header::HALVES
    };
    let mut spec = header::decoder(header, FAMILY.name, &habits)?;
    hub::each_mlp(&mut spec, |mlp| mlp.gated = false);
    header::windows(header, &mut spec, |_| true)?;
    Ok(spec)
}

fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let rest = match part {
        P::Up => "mlp.c_fc.weight",
        P::UpBias => "mlp.c_fc.bias",
        P::Down => "mlp.c_proj.weight",
        P::DownBias => "mlp.c_proj.bias",
        _ => return None,
    };
    Some(names::hub(layer, rest))
}
