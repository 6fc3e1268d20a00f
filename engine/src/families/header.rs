//! What the families read from a GGUF header in the same way.
//!
//! Keys are those of the GGUF specification, under the architecture's name; a key that is not
//! known here is refused, because an unread key may change the computation.

use super::decoder::{CONTEXT_MAX, Decoder, HEAD_DIM_MAX, HEADS_MAX, HIDDEN_MAX, LAYERS_MAX};
use super::rope;
use crate::spec::Role;
use crate::weights::gguf::Gguf;
use crate::weights::{LoadError, shown};

/// Keys that are read below, or that say nothing about the computation.
const KNOWN: [&str; 19] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
];

/// Keys that many converters write although their value means "nothing of the kind".
const MUST_BE_ZERO: [&str; 4] =
    ["expert_count", "expert_used_count", "pooling_type", "use_parallel_residual"];

/// A decoder without windows, biases or head norms; the family adds its own.
pub(super) fn decoder(header: &Gguf, family: &'static str) -> Result<Decoder, LoadError> {
    refuse(header)?;
    let key = |name: &str| header.arch_key(name);
    let hidden = header.need(&key("embedding_length"), HIDDEN_MAX)?;
    let layers = header.need(&key("block_count"), LAYERS_MAX)?;
    let heads = header.need(&key("attention.head_count"), HEADS_MAX)?;
    let kv_heads = header.count(&key("attention.head_count_kv"), HEADS_MAX)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let problem = format!("{kv_heads} does not divide attention.head_count, {heads}");
        return Err(header.wrong(&key("attention.head_count_kv"), &problem));
    }
    let head_dim = head_dim(header, hidden, heads)?;
    let eps = header.number(&key("attention.layer_norm_rms_epsilon"), 0.0, 1.0)?;
    let eps =
        eps.ok_or_else(|| header.wrong(&key("attention.layer_norm_rms_epsilon"), "is missing"))?;
    Ok(Decoder {
        family,
        hidden,
        vocab: vocab(header, hidden)?,
        context: header.need(&key("context_length"), CONTEXT_MAX)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        width: header.need(&key("feed_forward_length"), HIDDEN_MAX)?,
        norm_eps: eps as f32,
        rope: rotation(header, head_dim)?,
        windows: vec![None; layers],
        qk_norm: false,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        tied_head: header.shape(Role::Head).is_none(),
    })
}

fn refuse(header: &Gguf) -> Result<(), LoadError> {
    let prefix = header.arch_key("");
    for key in header.keys() {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        if MUST_BE_ZERO.contains(&name) {
            if header.number(key, 0.0, f64::MAX)? != Some(0.0) {
                return Err(header.wrong(key, "this option is not supported"));
            }
        } else if !KNOWN.contains(&name) {
            return Err(header.wrong(&shown(key), "this option is not known here"));
        }
    }
    if header.number(&header.arch_key("attention.causal"), 0.0, 1.0)? == Some(0.0) {
        let problem = "attention without a causal mask is not supported";
        return Err(header.wrong(&header.arch_key("attention.causal"), problem));
    }
    Ok(())
}

fn head_dim(header: &Gguf, hidden: usize, heads: usize) -> Result<usize, LoadError> {
    let key = |name: &str| header.arch_key(name);
    let stated = header.count(&key("attention.key_length"), HEAD_DIM_MAX)?;
    let head_dim = match stated {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) && hidden / heads <= HEAD_DIM_MAX => hidden / heads,
        None => {
            let problem = format!("{heads} heads do not share out {hidden} elements evenly");
            return Err(header.wrong(&key("attention.head_count"), &problem));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let problem = format!("heads of {head_dim} elements cannot be rotated, which needs pairs");
        return Err(header.wrong(&key("attention.key_length"), &problem));
    }
    for name in ["attention.value_length", "rope.dimension_count"] {
        let found = header.count(&key(name), HEAD_DIM_MAX)?;
        if found.is_some_and(|found| found != head_dim) {
            let problem = format!("values other than the head size, {head_dim}, are not supported");
            return Err(header.wrong(&key(name), &problem));
        }
    }
    Ok(head_dim)
}

/// The header need not say how many tokens there are; the embedding table always does.
fn vocab(header: &Gguf, hidden: usize) -> Result<usize, LoadError> {
    let rows = match header.shape(Role::Embedding) {
        Some([rows, cols]) if *cols == hidden as u64 && *rows > 0 => *rows as usize,
        _ => {
            let problem = format!("tensor token_embd.weight with {hidden} columns is missing");
            return Err(LoadError::new(header.file(), problem));
        }
    };
    let key = header.arch_key("vocab_size");
    match header.count(&key, super::decoder::VOCAB_MAX)? {
        Some(stated) if stated != rows => {
            Err(header.wrong(&key, &format!("is {stated}, the embedding table has {rows} rows")))
        }
        _ => Ok(rows),
    }
}

fn rotation(header: &Gguf, head_dim: usize) -> Result<kernels::Rope, LoadError> {
    let key = |name: &str| header.arch_key(name);
    let theta = header.number(&key("rope.freq_base"), 1.0, rope::THETA_MAX)?;
    let mut rope = rope::plain(theta.unwrap_or(rope::THETA_DEFAULT), head_dim);
    let kind = header.text(&key("rope.scaling.type"))?;
    match kind {
        None | Some("none" | "linear") => {}
        Some(other) => {
            let problem = format!("{} is not supported; none and linear are", shown(other));
            return Err(header.wrong(&key("rope.scaling.type"), &problem));
        }
    }
    // The older key came without a type and means linear.
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        let factor = header.number(&key(name), 0.0, rope::FACTOR_MAX)?;
        // Converters write 0 or 1 for "not scaled".
        let Some(factor) = factor.filter(|&factor| factor > 0.0 && kind != Some("none")) else {
            continue;
        };
        if factor < 1.0 {
            return Err(header.wrong(&key(name), &format!("{factor} is below 1")));
        }
        rope = rope::linear(rope, factor);
        break;
    }
    // Llama 3.1 and later: the converter stores what the llama3 rule divides each frequency by.
    if let Some(factors) = header.rope_factors(head_dim / 2)? {
        for (freq, factor) in rope.inv_freq.iter_mut().zip(factors) {
            *freq /= factor;
        }
    }
    Ok(rope)
}

/// Llama-like headers do not say whether there are biases; the first layer's tensors do, and the
/// check of all tensors then asks for them in every layer.
pub(super) fn biases(header: &Gguf, decoder: &mut Decoder) {
    decoder.qkv_bias = header.shape(Role::QueryBias(0)).is_some();
    decoder.out_bias = header.shape(Role::AttentionOutBias(0)).is_some();
    decoder.mlp_bias = header.shape(Role::GateBias(0)).is_some();
}

/// One window for every layer, where the header has one.
pub(super) fn window(header: &Gguf, decoder: &Decoder) -> Result<Vec<Option<u32>>, LoadError> {
    let key = header.arch_key("attention.sliding_window");
    let window = header.number(&key, 0.0, CONTEXT_MAX as f64)?.unwrap_or(0.0) as u32;
    Ok(vec![Some(window).filter(|&window| window > 0); decoder.layers])
}

/// For families whose GGUF files have none.
pub(super) fn no_window(header: &Gguf) -> Result<(), LoadError> {
    let key = header.arch_key("attention.sliding_window");
    match header.number(&key, 0.0, f64::MAX)? {
        None | Some(0.0) => Ok(()),
        Some(_) => Err(header.wrong(&key, "windows are not supported in files of this family")),
    }
}
