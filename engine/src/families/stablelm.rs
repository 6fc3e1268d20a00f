//! StableLM: Llama with layer norms and a quarter of each head turned; the 12B model has its two
//! blocks beside each other (arXiv 2402.17834).

use kernels::{HeadNorm, NormKind};

use super::header::{self, Habits, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::{HeadNormSpec, ModelSpec, Order};
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "stablelm",
    architectures: &["StableLmForCausalLM"],
    model_types: &["stablelm"],
    gguf: &["stablelm"],
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 4096,
        rotary: 0.25,
        norm: (NormKind::Layer, true),
        eps: ("layer_norm_eps", 1e-5),
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    let parallel = hub::flag(config, "use_parallel_residual")?;
    let bias = hub::flag(config, "use_qkv_bias")?;
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
    }
    shape(&mut spec, parallel, false);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let habits = Habits { norm: (NormKind::Layer, true), ..header::HALVES };
    let mut spec = header::decoder(header, FAMILY.name, &habits)?;
    header::no_window(header)?;
    // The header says so of models that are not, too; the second norm tells.
    let _ = header.flag("use_parallel_residual")?;
    let parallel = header.dims("blk.0.ffn_norm.weight").is_none();
    let normed = header.dims("blk.0.attn_q_norm.weight").is_some();
    shape(&mut spec, parallel, normed);
    Ok(spec)
}

fn shape(spec: &mut ModelSpec, parallel: bool, normed: bool) {
    let norm = HeadNormSpec {
        reach: HeadNorm::Each,
        kind: NormKind::Layer,
        own_weights: true,
        eps: spec.norm.eps,
        offset: 0.0,
    };
    for layer in &mut spec.layers {
        layer.order = if parallel { Order::Parallel } else { Order::Pre };
        layer.attention.qk_norm = Some(norm).filter(|_| normed);
    }
}
