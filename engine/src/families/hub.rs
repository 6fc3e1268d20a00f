//! What the families read from a `config.json` in the same way: sizes, norms, windows, and the
//! options that would change the computation and are refused by name.
//!
//! Field names and defaults are those of the transformers library's configuration classes.

use serde_json::Value;

use super::decoder::{
    CONTEXT_MAX, Decoder, HEAD_DIM_MAX, HEADS_MAX, HIDDEN_MAX, LAYERS_MAX, VOCAB_MAX,
};
use super::rope;
use crate::config::Fields;
use crate::weights::{LoadError, shown};

/// What an absent field means; differs between families.
pub(super) struct Defaults {
    /// `max_position_embeddings`.
    pub(super) context: usize,
    /// `num_key_value_heads`; `None`: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// `head_dim`; `None`: `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
}

/// Options of other families and of formats to come. They change what is computed, so anything
/// but absent, null, false, zero or empty is refused.
const MUST_BE_OFF: [&str; 36] = [
    "add_cross_attention",
    "alibi",
    "attention_chunk_size",
    "attention_multiplier",
    "attention_sinks",
    "attn_logit_softcapping",
    "audio_config",
    "clip_qkv",
    "compression_config",
    "cross_attention_layers",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "kv_lora_rank",
    "lm_head_bias",
    "logit_softcapping",
    "moe_intermediate_size",
    "n_routed_experts",
    "no_rope_layer_interval",
    "no_rope_layers",
    "num_experts",
    "num_local_experts",
    "num_nextn_predict_layers",
    "parallel_residual",
    "q_lora_rank",
    "qk_layernorm",
    "qk_norm",
    "query_pre_attn_scalar",
    "rope_interleaved",
    "scale_embeddings",
    "text_config",
    "use_alibi",
    "use_mrope",
    "use_parallel_residual",
    "use_qk_norm",
    "vision_config",
    "yarn",
];

/// Factors of other families: absent, null or 1.
const MUST_BE_ONE: [&str; 8] = [
    "embedding_multiplier",
    "embedding_scale",
    "logit_scale",
    "logits_scaling",
    "partial_rotary_factor",
    "residual_multiplier",
    "rotary_emb_fraction",
    "rotary_pct",
];

/// A decoder without windows, biases or head norms; the family adds its own.
pub(super) fn decoder(
    config: &Fields,
    family: &'static str,
    defaults: &Defaults,
) -> Result<Decoder, LoadError> {
    refuse(config)?;
    let hidden = config.need("hidden_size", HIDDEN_MAX)?;
    let layers = config.need("num_hidden_layers", LAYERS_MAX)?;
    let heads = config.need("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?;
    let kv_heads = kv_heads.or(defaults.kv_heads).unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let problem = format!("{kv_heads} does not divide num_attention_heads, {heads}");
        return Err(config.wrong("num_key_value_heads", &problem));
    }
    let head_dim = match config.count("head_dim", HEAD_DIM_MAX)?.or(defaults.head_dim) {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) && hidden / heads <= HEAD_DIM_MAX => hidden / heads,
        None => {
            let problem = format!("{heads} heads do not share out hidden_size {hidden} evenly");
            return Err(config.wrong("num_attention_heads", &problem));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let problem = format!("heads of {head_dim} elements cannot be rotated, which needs pairs");
        return Err(config.wrong("head_dim", &problem));
    }
    let norm_eps = config.number("rms_norm_eps", 0.0, 1.0)?.unwrap_or(1e-6);
    Ok(Decoder {
        family,
        hidden,
        vocab: config.need("vocab_size", VOCAB_MAX)?,
        context: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(defaults.context),
        layers,
        heads,
        kv_heads,
        head_dim,
        width: config.need("intermediate_size", HIDDEN_MAX)?,
        norm_eps: norm_eps as f32,
        rope: rope::from_config(config, head_dim)?,
        windows: vec![None; layers],
        qk_norm: false,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        tied_head: config.flag("tie_word_embeddings")?.unwrap_or(false),
    })
}

fn refuse(config: &Fields) -> Result<(), LoadError> {
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.word("quant_method")?.unwrap_or("without a name");
        let problem = format!(
            "quantization method {} is not supported; use the unquantized model or a GGUF file",
            shown(method)
        );
        return Err(config.wrong("quantization_config", &problem));
    }
    match config.word("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => {
            let problem = format!("{} is not supported; silu is", shown(other));
            return Err(config.wrong("hidden_act", &problem));
        }
    }
    if config.object("auto_map")?.is_some_and(|map| map.get("AutoModelForCausalLM").is_some()) {
        let problem = "the model brings code of its own, which is not run here";
        return Err(config.wrong("auto_map.AutoModelForCausalLM", problem));
    }
    for key in MUST_BE_OFF {
        if config.get(key).is_some_and(|value| !is_off(value)) {
            return Err(config.wrong(key, "this option is not supported"));
        }
    }
    for key in MUST_BE_ONE {
        if config.get(key).is_some_and(|value| value.as_f64() != Some(1.0)) {
            return Err(config.wrong(key, "this option is not supported with a value other than 1"));
        }
    }
    Ok(())
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// `sliding_window`, in positions.
pub(super) fn window(config: &Fields) -> Result<Option<u32>, LoadError> {
    Ok(config.count("sliding_window", CONTEXT_MAX)?.map(|window| window as u32))
}

/// For a family that has none.
pub(super) fn no_window(config: &Fields) -> Result<(), LoadError> {
    if window(config)?.is_some() {
        return Err(config.wrong("sliding_window", "this family has no windows"));
    }
    let layers = config.count("num_hidden_layers", LAYERS_MAX)?.unwrap_or(0);
    check_layer_types(config, &vec![None; layers])
}

/// The rule of the Qwen families: windows only when `use_sliding_window` is on, in the layers
/// from `max_window_layers` up, unless `layer_types` lists them.
pub(super) fn upper_windows(config: &Fields, layers: usize) -> Result<Vec<Option<u32>>, LoadError> {
    if !config.flag("use_sliding_window")?.unwrap_or(false) {
        let windows = vec![None; layers];
        check_layer_types(config, &windows)?;
        return Ok(windows);
    }
    let window = if config.spells("sliding_window") { window(config)? } else { Some(4096) };
    if let Some(types) = config.words("layer_types")? {
        let windows = types.iter().map(|kind| match *kind {
            "sliding_attention" => window,
            _ => None,
        });
        let windows: Vec<_> = windows.collect();
        check_layer_types(config, &windows)?;
        if windows.len() == layers {
            return Ok(windows);
        }
        let problem = format!("has {} entries for {layers} layers", windows.len());
        return Err(config.wrong("layer_types", &problem));
    }
    let first = config.whole("max_window_layers")?.unwrap_or(28) as usize;
    Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect())
}

/// Where a config lists `layer_types`, it must say the same as the windows that follow from its
/// other fields.
pub(super) fn check_layer_types(config: &Fields, windows: &[Option<u32>]) -> Result<(), LoadError> {
    let Some(types) = config.words("layer_types")? else { return Ok(()) };
    if types.len() != windows.len() {
        let problem = format!("has {} entries for {} layers", types.len(), windows.len());
        return Err(config.wrong("layer_types", &problem));
    }
    for (layer, (kind, window)) in types.iter().zip(windows).enumerate() {
        let agrees = match *kind {
            "full_attention" => window.is_none(),
            "sliding_attention" => window.is_some(),
            _ => false,
        };
        if !agrees {
            let said = window.map_or("no window".to_owned(), |w| format!("a window of {w}"));
            let problem =
                format!("layer {layer} is {}, but by the other fields it has {said}", shown(kind));
            return Err(config.wrong("layer_types", &problem));
        }
    }
    Ok(())
}
