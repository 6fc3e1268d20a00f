//! What becomes of the fields of a `config.json` that a family does not read.
//!
//! A field that nobody asked for has no effect here. If it is off (absent, null, false, 0, empty)
//! or on the list of harmless ones, that is right. If some family or format computes differently
//! by it, the file is refused by the field's name. Anything else is a word that is not known here:
//! the operator reads a note about it.

use crate::config::{Fields, is_off};
use crate::weights::{LoadError, shown};

/// Fields of the transformers library's base class and of published files that say nothing about
/// what is computed for a token.
const HARMLESS: [&str; 74] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "_sliding_window_pattern",
    "architectures",
    "attn_implementation",
    "aux_loss_alpha",
    "auto_map",
    "bad_words_ids",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_activation",
    "classifier_bias",
    "classifier_pooling",
    "cls_token_id",
    "decoder_bias",
    "deterministic_flash_attn",
    "dtype",
    "ep_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "full_attn_mod",
    "gradient_checkpointing",
    "id2label",
    "initial_context_length",
    "initializer_cutoff_factor",
    "initializer_factor",
    "initializer_range",
    "interpolate_factor",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "loss_type",
    "max_length",
    "max_new_tokens",
    "mlm",
    "model_max_length",
    "model_type",
    "num_labels",
    "order_of_interleaved_layers",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "problem_type",
    // Read where the weights are opened.
    "quantization_config",
    "reference_compile",
    "repad_logits_with_grad",
    "return_dict",
    "router_aux_loss_coef",
    "sentence_transformers",
    "seq_aux",
    "sparse_pred_ignore_index",
    "sparse_prediction",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_embedding_sharing",
    "z_loss_alpha",
];

/// Endings of further harmless fields: training only, or ids of tokens.
const HARMLESS_ENDINGS: [&str; 11] = [
    "_dropout",
    "_dropout_prob",
    "_dropout_prop",
    "_jitter_noise",
    "_pdrop",
    "_token",
    "_token_id",
    "_token_index",
    "dropout",
    "_loss_coef",
    "_loss_weight",
];

/// Fields by which some family or format computes something else.
const MATTERS: [&str; 112] = [
    "add_cross_attention",
    "alibi",
    "attention_bias",
    "attention_chunk_size",
    "attention_multiplier",
    "attention_out_bias",
    "attention_sinks",
    "attn_logit_softcapping",
    "attn_scale",
    "attn_temperature_tuning",
    "audio_config",
    "clip_qkv",
    "compression_config",
    "cross_attention_layers",
    "decoder_sparse_step",
    "embedding_size",
    "emb_pooler",
    "expert_layer_offset",
    "expert_layer_period",
    "final_logit_softcapping",
    "first_k_dense_replace",
    "floor_scale",
    "global_attn_every_n_layers",
    "hidden_act_param",
    "hidden_size_per_layer_input",
    "index_head_dim",
    "index_n_heads",
    "index_topk",
    "interleave_moe_layer_step",
    "is_encoder_decoder",
    "kv_lora_rank",
    "layer_group_size",
    "layer_norm_type",
    "layer_switch",
    "layer_types",
    "linear_attn_config",
    "lm_head_bias",
    "local_attention",
    "local_rope_theta",
    "logit_softcapping",
    "mamba_d_state",
    "mlp_bias",
    "mlp_only_layers",
    "moe_every_n_layers",
    "moe_intermediate_size",
    "moe_layer_freq",
    "moe_layers",
    "mscale",
    "mup_base_width",
    "mup_width_multiplier",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "no_rope_layer_interval",
    "no_rope_layers",
    "norm_after",
    "norm_bias",
    "norm_topk_prob",
    "norm_type",
    "num_experts",
    "num_experts_per_tok",
    "num_global_layers",
    "num_kv_shared_layers",
    "num_local_experts",
    "parallel_attn",
    "parallel_residual",
    "position_embedding_type",
    "prefix_lm",
    "q_lora_rank",
    "qk_layernorm",
    "qk_nope_head_dim",
    "qk_norm",
    "qk_rope_head_dim",
    "qkv_bias",
    "query_pre_attn_scalar",
    "relative_attention",
    "rope_interleave",
    "rope_interleaved",
    "rope_local_base_freq",
    "rope_ratio",
    "rotary_emb_interleaved",
    "rotary_emb_scale_base",
    "routed_scaling_factor",
    "scale_attention_softmax_in_fp32",
    "scale_attn_by_inverse_layer_idx",
    "scale_depth",
    "scale_emb",
    "scale_embeddings",
    "scoring_func",
    "shared_expert_intermediate_size",
    "sliding_window",
    "sliding_window_pattern",
    "sparse_attention",
    "swiglu_alpha",
    "swiglu_limit",
    "text_config",
    "topk_group",
    "topk_method",
    "type_vocab_size",
    "use_alibi",
    "use_bias",
    "use_bidirectional_attention",
    "use_mla",
    "use_mrope",
    "use_parallel_residual",
    "use_qk_norm",
    "use_qkv_bias",
    "use_sliding_window",
    "v_head_dim",
    "vision_config",
    "window_attn_skip_freq",
    "yarn",
];

/// Factors by which some family computes: absent, null or 1 where they are not read.
const MUST_BE_ONE: [&str; 9] = [
    "embedding_multiplier",
    "embedding_scale",
    "logit_scale",
    "logits_scaling",
    "partial_rotary_factor",
    "residual_multiplier",
    "rotary_emb_fraction",
    "rotary_pct",
    "ssm_multipliers",
];

/// Refuses what no family computes: weights in packed formats, code that comes with the model.
pub(super) fn refuse_foreign(config: &Fields, own_code: bool) -> Result<(), LoadError> {
    if let Some(map) = config.object("auto_map")?
        && !own_code
        && let Some(key) = map.keys().find(|key| key.starts_with("AutoModel"))
    {
        let problem = "the model brings code of its own, which is not run here";
        return Err(map.wrong(&shown(key), problem));
    }
    Ok(())
}

/// Judges the fields that no reader asked for.
///
/// # Errors
/// One of them would change what is computed.
pub(super) fn unasked(config: &Fields, family: &str) -> Result<Vec<String>, LoadError> {
    let mut notes = Vec::new();
    for (key, value) in config.unasked() {
        let harmless = HARMLESS.contains(&key)
            || HARMLESS_ENDINGS.iter().any(|ending| key.ends_with(ending))
            || is_off(value);
        if harmless || (MUST_BE_ONE.contains(&key) && value.as_f64() == Some(1.0)) {
            continue;
        }
        if MUST_BE_ONE.contains(&key) {
            return Err(config.wrong(key, "values other than 1 are not supported in this family"));
        }
        if MATTERS.contains(&key) {
            let problem = format!("this option is not supported in {family} models");
            return Err(config.wrong(key, &problem));
        }
        let file = config.file().display();
        notes.push(format!("{file}: {} is not known here and has no effect", shown(key)));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What is said about one field that nobody reads.
    fn check(field: &str, expect: &str) {
        let json = format!("{{{field}}}");
        let config = Fields::parse(Path::new("config.json"), json.as_bytes()).unwrap();
        let said = match unasked(&config, "test") {
            Ok(notes) => notes.join("; "),
            Err(error) => format!("refused: {}", error.problem),
        };
        assert!(said.contains(expect) && said.is_empty() == expect.is_empty(), "{field}: {said}");
    }

    #[test]
    fn what_is_not_read_is_harmless_refused_or_noted() {
        check(r#""use_cache": true"#, "");
        check(r#""resid_pdrop": 0.1"#, "");
        check(r#""pad_token_id": 7"#, "");
        check(r#""clip_qkv": null"#, "");
        check(r#""num_experts": 0"#, "");
        check(r#""logit_scale": 1.0"#, "");
        check(r#""clip_qkv": 8.0"#, "refused: clip_qkv");
        check(r#""logit_scale": 0.5"#, "refused: logit_scale");
        check(r#""text_config": {"hidden_size": 4}"#, "refused: text_config");
        check(r#""colour": "green""#, "colour is not known here");
        check(r#""colour": """#, "");
    }

    #[test]
    fn the_lists_do_not_contradict_each_other() {
        for (at, key) in HARMLESS.iter().enumerate() {
            assert!(!MATTERS.contains(key) && !MUST_BE_ONE.contains(key), "{key}");
            assert!(!HARMLESS[..at].contains(key), "{key} twice");
        }
        for key in MATTERS {
            assert!(!HARMLESS_ENDINGS.iter().any(|ending| key.ends_with(ending)), "{key}");
        }
    }
}
