//! ERNIE 4.5 without experts: Llama whose heads are turned in pairs of neighbours.

use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, hub};
use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

pub(super) const FAMILY: Family = Family {
    name: "ernie4_5",
    architectures: &["Ernie4_5ForCausalLM"],
    model_types: &["ernie4_5"],
    gguf: &["ernie4_5"],
    own_code: true,
    from_config,
    from_header,
    ..USUAL
};

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let spelling = Spelling {
        context: 131_072,
        kv_heads: Some(2),
        head_dim: ("head_dim", Some(128)),
        theta: 5e5,
        eps: ("rms_norm_eps", 1e-5),
        tied: true,
        ..hub::LLAMA
    };
    let mut spec = hub::decoder(config, FAMILY.name, &spelling)?;
    hub::no_window(config, &spec)?;
    spec.ropes[0].interleaved = true;
    let bias = hub::flag(config, "use_bias")?;
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
        layer.attention.out_bias = bias;
    }
    hub::each_mlp(&mut spec, |mlp| mlp.bias = bias);
    Ok(spec)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header::no_window(header)?;
    Ok(spec)
}
