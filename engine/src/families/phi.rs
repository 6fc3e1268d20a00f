//! Phi 1, 1.5 and 2: attention and an MLP without a gate beside each other, layer norms, biases
//! everywhere, part of each head turned (arXiv 2309.05463).

use kernels::{Activation, NormKind};

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub, names};
use crate::config::Fields;
use crate::spec::{LayerPart as P, ModelSpec, Order, Role};
use crate::weights::{LoadError, Source};

pub(super) const FAMILY: Family = Family {
    name: "phi",
    architectures: &["PhiForCausalLM"],
    model_types: &["phi"],
    gguf: &["phi2"],
    hub_source,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        rotary: 0.5,
        norm: (NormKind::Layer, true),
        eps: ("layer_norm_eps", 1e-5),
        activation: ("hidden_act", Activation::GeluTanh),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    beside(&mut spec);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits = Habits {
        norm: (NormKind::Layer, true),
        activation: Activation::GeluTanh,
        ..header::HALVES
    };
    let mut spec = header::decoder(header, FAMILY.name, &habits)?;
    header::no_window(header)?;
    beside(&mut spec);
    Ok(spec)
}

fn beside(spec: &mut ModelSpec) {
    for layer in &mut spec.layers {
        layer.order = Order::Parallel;
        layer.attention.qkv_bias = true;
        layer.attention.out_bias = true;
    }
    hub::each_mlp(spec, |mlp| {
        mlp.gated = false;
        mlp.bias = true;
    });
    if let Some(head) = &mut spec.head {
        head.bias = true;
    }
}

fn hub_source(_: &ModelSpec, role: Role) -> Option<Source> {
    let (layer, part) = match role {
        Role::FinalNorm => return Some(Source::all("final_layernorm.weight")),
        Role::FinalNormBias => return Some(Source::all("final_layernorm.bias")),
        Role::Layer(layer, part) => (layer, part),
        _ => return None,
    };
    let rest = match part {
        P::AttentionOut => "self_attn.dense.weight",
        P::AttentionOutBias => "self_attn.dense.bias",
        P::Up => "mlp.fc1.weight",
        P::UpBias => "mlp.fc1.bias",
        P::Down => "mlp.fc2.weight",
        P::DownBias => "mlp.fc2.bias",
        _ => return None,
    };
    Some(names::hub(layer, rest))
}
