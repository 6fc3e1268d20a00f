//! How the two file formats usually spell the role of a tensor. Families that differ say so
//! themselves; see `families`.
//!
//! The names are those of the Hugging Face checkpoints of the Llama-like families, and of the
//! GGUF standard names (ggml's `gguf.md`). Which roles a model has is its spec's business.

use super::Source;
use crate::spec::{ExpertPart as E, LayerPart as P, Role};

/// The usual place in a Hugging Face checkpoint, relative to the base model: `model.` or what
/// else stands before the layers is the weight source's business. The head stands by itself.
pub(crate) fn hub(role: Role) -> Source {
    Source::all(hub_name(role))
}

fn hub_name(role: Role) -> String {
    match role {
        Role::Embedding => "embed_tokens.weight".to_owned(),
        Role::PositionEmbedding => "embed_positions.weight".to_owned(),
        Role::TypeEmbedding => "token_type_embeddings.weight".to_owned(),
        Role::EmbeddingNorm => "embed_norm.weight".to_owned(),
        Role::EmbeddingNormBias => "embed_norm.bias".to_owned(),
        Role::FinalNorm => "norm.weight".to_owned(),
        Role::FinalNormBias => "norm.bias".to_owned(),
        Role::Head => "lm_head.weight".to_owned(),
        Role::HeadBias => "lm_head.bias".to_owned(),
        Role::Layer(layer, part) => format!("layers.{layer}.{}", hub_part(part)),
        Role::Expert(layer, expert, part) => {
            let rest = match part {
                E::Gate => "gate_proj.weight",
                E::Up => "up_proj.weight",
                E::Down => "down_proj.weight",
                E::GateBias => "gate_proj.bias",
                E::UpBias => "up_proj.bias",
                E::DownBias => "down_proj.bias",
            };
            format!("layers.{layer}.mlp.experts.{expert}.{rest}")
        }
    }
}

fn hub_part(part: P) -> &'static str {
    match part {
        P::AttentionNorm => "input_layernorm.weight",
        P::AttentionNormBias => "input_layernorm.bias",
        P::Query => "self_attn.q_proj.weight",
        P::Key => "self_attn.k_proj.weight",
        P::Value => "self_attn.v_proj.weight",
        P::QueryBias => "self_attn.q_proj.bias",
        P::KeyBias => "self_attn.k_proj.bias",
        P::ValueBias => "self_attn.v_proj.bias",
        P::QueryNorm => "self_attn.q_norm.weight",
        P::KeyNorm => "self_attn.k_norm.weight",
        P::QueryDown => "self_attn.q_a_proj.weight",
        P::QueryDownNorm => "self_attn.q_a_layernorm.weight",
        P::Latent => "self_attn.kv_a_proj_with_mqa.weight",
        P::LatentNorm => "self_attn.kv_a_layernorm.weight",
        // Both are rows of one tensor, per head; the families that have it say which.
        P::KeyUp | P::ValueUp => "self_attn.kv_b_proj.weight",
        P::Sinks => "self_attn.sinks",
        P::AttentionOut => "self_attn.o_proj.weight",
        P::AttentionOutBias => "self_attn.o_proj.bias",
        P::AttentionPostNorm => "post_self_attn_layernorm.weight",
        P::AttentionPostNormBias => "post_self_attn_layernorm.bias",
        P::MlpNorm => "post_attention_layernorm.weight",
        P::MlpNormBias => "post_attention_layernorm.bias",
        P::MlpPostNorm => "post_mlp_layernorm.weight",
        P::MlpPostNormBias => "post_mlp_layernorm.bias",
        P::Gate => "mlp.gate_proj.weight",
        P::Up => "mlp.up_proj.weight",
        P::Down => "mlp.down_proj.weight",
        P::GateBias => "mlp.gate_proj.bias",
        P::UpBias => "mlp.up_proj.bias",
        P::DownBias => "mlp.down_proj.bias",
        P::Router => "mlp.gate.weight",
        P::RouterBias => "mlp.gate.bias",
        P::RouterCorrection => "mlp.gate.e_score_correction_bias",
        P::SharedGate => "mlp.shared_experts.gate_proj.weight",
        P::SharedUp => "mlp.shared_experts.up_proj.weight",
        P::SharedDown => "mlp.shared_experts.down_proj.weight",
        P::SharedSwitch => "mlp.shared_expert_gate.weight",
    }
}

/// The usual place in a GGUF file. `experts` is how many experts a stacked tensor has.
pub(crate) fn gguf(role: Role, experts: usize) -> Source {
    match role {
        Role::Embedding => Source::all("token_embd.weight"),
        Role::PositionEmbedding => Source::all("position_embd.weight"),
        Role::TypeEmbedding => Source::all("token_types.weight"),
        Role::EmbeddingNorm => Source::all("token_embd_norm.weight"),
        Role::EmbeddingNormBias => Source::all("token_embd_norm.bias"),
        Role::FinalNorm => Source::all("output_norm.weight"),
        Role::FinalNormBias => Source::all("output_norm.bias"),
        Role::Head => Source::all("output.weight"),
        Role::HeadBias => Source::all("output.bias"),
        Role::Layer(layer, part) => Source::all(format!("blk.{layer}.{}", gguf_part(part))),
        Role::Expert(layer, expert, part) => {
            let rest = match part {
                E::Gate => "ffn_gate_exps.weight",
                E::Up => "ffn_up_exps.weight",
                E::Down => "ffn_down_exps.weight",
                E::GateBias => "ffn_gate_exps.bias",
                E::UpBias => "ffn_up_exps.bias",
                E::DownBias => "ffn_down_exps.bias",
            };
            Source::slab(format!("blk.{layer}.{rest}"), expert, experts)
        }
    }
}

fn gguf_part(part: P) -> &'static str {
    match part {
        P::AttentionNorm => "attn_norm.weight",
        P::AttentionNormBias => "attn_norm.bias",
        P::Query => "attn_q.weight",
        P::Key => "attn_k.weight",
        P::Value => "attn_v.weight",
        P::QueryBias => "attn_q.bias",
        P::KeyBias => "attn_k.bias",
        P::ValueBias => "attn_v.bias",
        P::QueryNorm => "attn_q_norm.weight",
        P::KeyNorm => "attn_k_norm.weight",
        P::QueryDown => "attn_q_a.weight",
        P::QueryDownNorm => "attn_q_a_norm.weight",
        P::Latent => "attn_kv_a_mqa.weight",
        P::LatentNorm => "attn_kv_a_norm.weight",
        P::KeyUp => "attn_k_b.weight",
        P::ValueUp => "attn_v_b.weight",
        P::Sinks => "attn_sinks.weight",
        P::AttentionOut => "attn_output.weight",
        P::AttentionOutBias => "attn_output.bias",
        P::AttentionPostNorm => "post_attention_norm.weight",
        P::AttentionPostNormBias => "post_attention_norm.bias",
        P::MlpNorm => "ffn_norm.weight",
        P::MlpNormBias => "ffn_norm.bias",
        P::MlpPostNorm => "post_ffw_norm.weight",
        P::MlpPostNormBias => "post_ffw_norm.bias",
        P::Gate => "ffn_gate.weight",
        P::Up => "ffn_up.weight",
        P::Down => "ffn_down.weight",
        P::GateBias => "ffn_gate.bias",
        P::UpBias => "ffn_up.bias",
        P::DownBias => "ffn_down.bias",
        P::Router => "ffn_gate_inp.weight",
        P::RouterBias => "ffn_gate_inp.bias",
        P::RouterCorrection => "exp_probs_b.bias",
        P::SharedGate => "ffn_gate_shexp.weight",
        P::SharedUp => "ffn_up_shexp.weight",
        P::SharedDown => "ffn_down_shexp.weight",
        P::SharedSwitch => "ffn_gate_inp_shexp.weight",
    }
}
