//! How the two file formats spell the role of a tensor.
//!
//! The names are those of the Hugging Face checkpoints of the Llama-like families, and of the
//! GGUF standard names (ggml's `gguf.md`). Which roles a model has is its spec's business.

use crate::spec::Role;

/// The name in a Hugging Face checkpoint. `prefix` is `model.` or nothing: base models are saved
/// without it, and the head never carries it.
pub(super) fn hub(role: Role, prefix: &str) -> String {
    let (layer, rest) = match role {
        Role::Embedding => return format!("{prefix}embed_tokens.weight"),
        Role::FinalNorm => return format!("{prefix}norm.weight"),
        Role::Head => return "lm_head.weight".to_owned(),
        Role::AttentionNorm(layer) => (layer, "input_layernorm.weight"),
        Role::Query(layer) => (layer, "self_attn.q_proj.weight"),
        Role::Key(layer) => (layer, "self_attn.k_proj.weight"),
        Role::Value(layer) => (layer, "self_attn.v_proj.weight"),
        Role::QueryBias(layer) => (layer, "self_attn.q_proj.bias"),
        Role::KeyBias(layer) => (layer, "self_attn.k_proj.bias"),
        Role::ValueBias(layer) => (layer, "self_attn.v_proj.bias"),
        Role::QueryNorm(layer) => (layer, "self_attn.q_norm.weight"),
        Role::KeyNorm(layer) => (layer, "self_attn.k_norm.weight"),
        Role::AttentionOut(layer) => (layer, "self_attn.o_proj.weight"),
        Role::AttentionOutBias(layer) => (layer, "self_attn.o_proj.bias"),
        Role::MlpNorm(layer) => (layer, "post_attention_layernorm.weight"),
        Role::Gate(layer) => (layer, "mlp.gate_proj.weight"),
        Role::Up(layer) => (layer, "mlp.up_proj.weight"),
        Role::Down(layer) => (layer, "mlp.down_proj.weight"),
        Role::GateBias(layer) => (layer, "mlp.gate_proj.bias"),
        Role::UpBias(layer) => (layer, "mlp.up_proj.bias"),
        Role::DownBias(layer) => (layer, "mlp.down_proj.bias"),
    };
    format!("{prefix}layers.{layer}.{rest}")
}

/// The name in a GGUF file.
pub(super) fn gguf(role: Role) -> String {
    let (layer, rest) = match role {
        Role::Embedding => return "token_embd.weight".to_owned(),
        Role::FinalNorm => return "output_norm.weight".to_owned(),
        Role::Head => return "output.weight".to_owned(),
        Role::AttentionNorm(layer) => (layer, "attn_norm.weight"),
        Role::Query(layer) => (layer, "attn_q.weight"),
        Role::Key(layer) => (layer, "attn_k.weight"),
        Role::Value(layer) => (layer, "attn_v.weight"),
        Role::QueryBias(layer) => (layer, "attn_q.bias"),
        Role::KeyBias(layer) => (layer, "attn_k.bias"),
        Role::ValueBias(layer) => (layer, "attn_v.bias"),
        Role::QueryNorm(layer) => (layer, "attn_q_norm.weight"),
        Role::KeyNorm(layer) => (layer, "attn_k_norm.weight"),
        Role::AttentionOut(layer) => (layer, "attn_output.weight"),
        Role::AttentionOutBias(layer) => (layer, "attn_output.bias"),
        Role::MlpNorm(layer) => (layer, "ffn_norm.weight"),
        Role::Gate(layer) => (layer, "ffn_gate.weight"),
        Role::Up(layer) => (layer, "ffn_up.weight"),
        Role::Down(layer) => (layer, "ffn_down.weight"),
        Role::GateBias(layer) => (layer, "ffn_gate.bias"),
        Role::UpBias(layer) => (layer, "ffn_up.bias"),
        Role::DownBias(layer) => (layer, "ffn_down.bias"),
    };
    format!("blk.{layer}.{rest}")
}
