//! Shapes of well-known models, as the fields of their published configurations: enough to build
//! one with random weights where the real weights are not at hand.
//!
//! They are read by the same code as a downloaded `config.json`. Must not know what is measured.

use std::path::Path;

use crate::config::Fields;
use crate::families;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

/// Names of all shapes, `tiny` last: it is for tests.
pub const NAMES: [&str; 10] = {
    let mut names = [""; 10];
    let mut at = 0;
    while at < names.len() {
        names[at] = SHAPES[at].0;
        at += 1;
    }
    names
};

const SHAPES: [(&str, &str); 10] = [
    ("llama-3.1-8b", LLAMA_3_1_8B),
    ("llama-3.2-1b", LLAMA_3_2_1B),
    ("llama-3.3-70b", LLAMA_3_3_70B),
    ("qwen3-0.6b", QWEN3_0_6B),
    ("qwen3-4b", QWEN3_4B),
    ("qwen3-8b", QWEN3_8B),
    ("qwen3-30b-a3b", QWEN3_30B_A3B),
    ("mistral-7b", MISTRAL_7B),
    ("gemma-2-9b", GEMMA_2_9B),
    ("tiny", TINY),
];

/// What the model of this name computes; `None`: there is none.
pub(super) fn spec(name: &str) -> Option<Result<ModelSpec, LoadError>> {
    let (name, json) = SHAPES.iter().find(|(known, _)| *known == name)?;
    let path = Path::new(name).join("config.json");
    let read = || Ok(families::from_config(&Fields::parse(&path, json.as_bytes())?)?.spec);
    Some(read())
}

const LLAMA_3_1_8B: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": false}"#;

const LLAMA_3_2_1B: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": true}"#;

const LLAMA_3_3_70B: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": false}"#;

const QWEN3_0_6B: &str = r#"{
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "tie_word_embeddings": true}"#;

const QWEN3_4B: &str = r#"{
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "head_dim": 128,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "tie_word_embeddings": true}"#;

const QWEN3_8B: &str = r#"{
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "tie_word_embeddings": false}"#;

const QWEN3_30B_A3B: &str = r#"{
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "num_hidden_layers": 48, "head_dim": 128,
    "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "tie_word_embeddings": false}"#;

const MISTRAL_7B: &str = r#"{
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
    "sliding_window": null, "tie_word_embeddings": false}"#;

const GEMMA_2_9B: &str = r#"{
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 3584, "intermediate_size": 14336,
    "num_hidden_layers": 42, "head_dim": 256, "num_attention_heads": 16,
    "num_key_value_heads": 8, "vocab_size": 256000, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096,
    "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0}"#;

/// Widths divide by 256, so that every format applies.
const TINY: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": false}"#;

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters as the models' cards give them, in billions.
    #[test]
    fn shapes_have_the_published_sizes() {
        for (name, billions) in [
            ("llama-3.1-8b", 8.03),
            ("llama-3.2-1b", 1.24),
            ("llama-3.3-70b", 70.55),
            ("qwen3-0.6b", 0.60),
            ("qwen3-4b", 4.02),
            ("qwen3-8b", 8.19),
            ("qwen3-30b-a3b", 30.53),
            ("mistral-7b", 7.25),
            ("gemma-2-9b", 9.24),
        ] {
            let spec = spec(name).unwrap().unwrap();
            let all: usize = spec.tensors().iter().map(|need| need.rows * need.cols).sum();
            let found = all as f64 / 1e9;
            assert!((found - billions).abs() < 0.006, "{name}: {found}");
        }
        assert!(NAMES.iter().all(|name| spec(name).unwrap().is_ok()));
        assert!(spec("llama").is_none());
    }
}
