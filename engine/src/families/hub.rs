//! What the families read from a `config.json` in the same way: sizes, norms, activations,
//! windows and layer types.
//!
//! Field names and defaults are those of the transformers library's configuration classes. What
//! an unread field means is decided in `keys`.

use kernels::{Activation, NormKind};

use super::decoder::{
    CONTEXT_MAX, HEAD_DIM_MAX, HEADS_MAX, HIDDEN_MAX, LAYERS_MAX, Sizes, VOCAB_MAX,
};
use super::rope::{self, Base};
use crate::config::Fields;
use crate::spec::{DenseSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec};
use crate::weights::{LoadError, shown};

/// How a family spells what all of them have, and what an absent field means.
pub(super) struct Spelling {
    /// `max_position_embeddings`.
    pub(super) context: usize,
    /// `num_key_value_heads`; `None`: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// Field with the elements of a head that may turn, and its default; `None`:
    /// `hidden_size / num_attention_heads`.
    pub(super) head_dim: (&'static str, Option<usize>),
    /// `rope_theta`.
    pub(super) theta: f64,
    /// `partial_rotary_factor`.
    pub(super) rotary: f64,
    /// Kind of the norms, and whether they have a bias.
    pub(super) norm: (NormKind, bool),
    /// Field with the norms' epsilon, and its default.
    pub(super) eps: (&'static str, f64),
    /// Field with the activation, and its default.
    pub(super) activation: (&'static str, Activation),
    /// `tie_word_embeddings`.
    pub(super) tied: bool,
}

/// Llama's, which most others repeat.
pub(super) const LLAMA: Spelling = Spelling {
    context: 2048,
    kv_heads: None,
    head_dim: ("head_dim", None),
    theta: rope::THETA_DEFAULT,
    rotary: 1.0,
    norm: (NormKind::Rms, false),
    eps: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", Activation::Silu),
    tied: false,
};

/// A decoder without windows, biases or head norms; the family changes what differs.
pub(super) fn decoder(
    config: &Fields,
    family: &'static str,
    spelling: &Spelling,
) -> Result<ModelSpec, LoadError> {
    let hidden = config.need("hidden_size", HIDDEN_MAX)?;
    let heads = config.need("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?;
    let kv_heads = kv_heads.or(spelling.kv_heads).unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let problem = format!("{kv_heads} does not divide num_attention_heads, {heads}");
        return Err(config.wrong("num_key_value_heads", &problem));
    }
    let head_dim = head_dim(config, spelling, hidden, heads)?;
    let context = config.count("max_position_embeddings", CONTEXT_MAX)?;
    let context = context.unwrap_or(spelling.context);
    let rope = rope::from_config(config, &base(spelling, head_dim, context))?;
    let context = rope::reach(config, context)?;
    let sizes = Sizes {
        family,
        hidden,
        vocab: config.need("vocab_size", VOCAB_MAX)?,
        context,
        layers: config.need("num_hidden_layers", LAYERS_MAX)?,
        heads,
        kv_heads,
        head_dim,
        width: config.need("intermediate_size", HIDDEN_MAX)?,
        activation: activation(config, spelling.activation.0)?.unwrap_or(spelling.activation.1),
        norm: norm(config, spelling)?,
        rope,
        tied: config.flag("tie_word_embeddings")?.unwrap_or(spelling.tied),
    };
    Ok(sizes.decoder())
}

/// What a family's rotations start from.
pub(super) fn base(spelling: &Spelling, head_dim: usize, context: usize) -> Base {
    Base { head_dim, theta: spelling.theta, rotary: spelling.rotary, context }
}

fn head_dim(
    config: &Fields,
    spelling: &Spelling,
    hidden: usize,
    heads: usize,
) -> Result<usize, LoadError> {
    let (field, default) = spelling.head_dim;
    let head_dim = match config.count(field, HEAD_DIM_MAX)?.or(default) {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) && hidden / heads <= HEAD_DIM_MAX => hidden / heads,
        None => {
            let problem = format!("{heads} heads do not share out hidden_size {hidden} evenly");
            return Err(config.wrong("num_attention_heads", &problem));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let problem = format!("heads of {head_dim} elements cannot be rotated, which needs pairs");
        return Err(config.wrong(field, &problem));
    }
    Ok(head_dim)
}

/// The norms of the residual stream.
pub(super) fn norm(config: &Fields, spelling: &Spelling) -> Result<NormSpec, LoadError> {
    let (field, default) = spelling.eps;
    let eps = config.number(field, 0.0, 1.0)?.unwrap_or(default) as f32;
    let (kind, bias) = spelling.norm;
    Ok(NormSpec { kind, eps, offset: 0.0, bias })
}

/// The activation that a field names, by the names of the transformers library.
pub(super) fn activation(config: &Fields, field: &str) -> Result<Option<Activation>, LoadError> {
    let Some(name) = config.word(field)? else { return Ok(None) };
    Ok(Some(match name {
        "silu" | "swish" => Activation::Silu,
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_accurate" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "relu2" => Activation::ReluSquared,
        other => {
            let problem = format!(
                "{} is not supported; silu, gelu, gelu_new, gelu_pytorch_tanh, relu and relu2 are",
                shown(other)
            );
            return Err(config.wrong(field, &problem));
        }
    }))
}

/// Marks fields that the family's files have and that change nothing in it.
pub(super) fn idle(config: &Fields, fields: &[&str]) {
    for field in fields {
        let _ = config.get(field);
    }
}

/// A flag that is off unless set.
pub(super) fn flag(config: &Fields, field: &str) -> Result<bool, LoadError> {
    Ok(config.flag(field)?.unwrap_or(false))
}

/// A factor, 1 unless set.
pub(super) fn factor(config: &Fields, field: &str) -> Result<f32, LoadError> {
    Ok(config.number(field, 1e-6, 1e6)?.unwrap_or(1.0) as f32)
}

/// A soft cap; the transformers library takes 0 for none.
pub(super) fn cap(config: &Fields, field: &str) -> Result<Option<f32>, LoadError> {
    Ok(config.number(field, 0.0, 1e6)?.filter(|&cap| cap > 0.0).map(|cap| cap as f32))
}

/// `attention_bias`: on all four projections of every layer.
pub(super) fn attention_bias(
    config: &Fields,
    spec: &mut ModelSpec,
    default: bool,
) -> Result<(), LoadError> {
    let bias = config.flag("attention_bias")?.unwrap_or(default);
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = bias;
        layer.attention.out_bias = bias;
    }
    Ok(())
}

/// Changes the dense MLP of every layer.
pub(super) fn each_mlp(spec: &mut ModelSpec, change: impl Fn(&mut DenseSpec)) {
    for layer in &mut spec.layers {
        if let MlpSpec::Dense(dense) = &mut layer.mlp {
            change(dense);
        }
    }
}

/// `sliding_window`, in positions; zero counts as none.
pub(super) fn window(config: &Fields) -> Result<Option<u32>, LoadError> {
    if config.whole("sliding_window")? == Some(0) {
        return Ok(None);
    }
    Ok(config.count("sliding_window", CONTEXT_MAX)?.map(|window| window as u32))
}

/// Which layers have windows by `layer_types`, where the file lists them.
pub(super) fn listed(config: &Fields, layers: usize) -> Result<Option<Vec<bool>>, LoadError> {
    let Some(types) = config.words("layer_types")? else { return Ok(None) };
    if types.len() != layers {
        let problem = format!("has {} entries for {layers} layers", types.len());
        return Err(config.wrong("layer_types", &problem));
    }
    let windowed = types.iter().map(|kind| match *kind {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        other => {
            let problem = format!(
                "{} is not supported; full_attention and sliding_attention are",
                shown(other)
            );
            Err(config.wrong("layer_types", &problem))
        }
    });
    windowed.collect::<Result<_, _>>().map(Some)
}

/// Gives `window` to the layers that `layer_types` lists, or, where the file has no such list, to
/// those for which `usual` holds.
pub(super) fn windows(
    config: &Fields,
    spec: &mut ModelSpec,
    window: Option<u32>,
    usual: impl Fn(usize) -> bool,
) -> Result<(), LoadError> {
    let listed = listed(config, spec.layers.len())?;
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        let windowed = listed.as_ref().map_or_else(|| usual(index), |listed| listed[index]);
        if windowed && window.is_none() {
            return Err(config.wrong("sliding_window", "is missing; layer_types needs it"));
        }
        layer.attention.window = window.filter(|_| windowed);
    }
    Ok(())
}

/// For a family whose layers have the window of the file, or none has one.
pub(super) fn one_window(
    config: &Fields,
    spec: &mut ModelSpec,
    window: Option<u32>,
) -> Result<(), LoadError> {
    for layer in &mut spec.layers {
        layer.attention.window = window;
    }
    check_listed(config, &spec.layers)
}

/// For a family that has none.
pub(super) fn no_window(config: &Fields, spec: &ModelSpec) -> Result<(), LoadError> {
    if window(config)?.is_some() {
        return Err(config.wrong("sliding_window", "this family has no windows"));
    }
    check_listed(config, &spec.layers)
}

/// The rule of the Qwen families: windows only when `use_sliding_window` is on, in the layers
/// from `max_window_layers` up, unless `layer_types` lists them.
pub(super) fn upper_windows(config: &Fields, spec: &mut ModelSpec) -> Result<(), LoadError> {
    let first = config.whole("max_window_layers")?.unwrap_or(28) as usize;
    let spelled = config.spells("sliding_window");
    let window = if spelled { window(config)? } else { Some(4096) };
    if !flag(config, "use_sliding_window")? {
        return check_listed(config, &spec.layers);
    }
    windows(config, spec, window, |layer| window.is_some() && layer >= first)
}

/// Where a config lists `layer_types`, it must say the same as the windows that follow from its
/// other fields.
fn check_listed(config: &Fields, layers: &[LayerSpec]) -> Result<(), LoadError> {
    let Some(listed) = listed(config, layers.len())? else { return Ok(()) };
    for (index, (windowed, layer)) in listed.iter().zip(layers).enumerate() {
        let window = layer.attention.window;
        if *windowed != window.is_some() {
            let kind = if *windowed { "sliding_attention" } else { "full_attention" };
            let said = window.map_or("no window".to_owned(), |w| format!("a window of {w}"));
            let problem = format!("layer {index} is {kind}, but by the other fields it has {said}");
            return Err(config.wrong("layer_types", &problem));
        }
    }
    Ok(())
}

/// A decoder that was made a reranker has a score where its head was.
pub(super) fn score_for_head(config: &Fields, spec: &mut ModelSpec) -> Result<(), LoadError> {
    let names = config.words("architectures")?.unwrap_or_default();
    if names.iter().any(|name| name.ends_with("ForSequenceClassification")) {
        spec.head = None;
    }
    Ok(())
}

/// That score, which is computed behind the model.
pub(super) fn is_score(spec: &ModelSpec, name: &str) -> bool {
    spec.head.is_none() && name == "score.weight"
}
