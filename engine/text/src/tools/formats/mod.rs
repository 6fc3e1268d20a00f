//! The formats, one file each. The order is that of detection: a format whose signs are among
//! another's comes behind it.

mod command_r;
mod command_r7b;
mod deepseek_v3;
mod deepseek_v31;
pub(super) mod generic;
mod glm;
mod granite;
mod harmony;
mod hermes;
mod kimi_k2;
mod llama_json;
mod llama_pythonic;
mod mistral;
mod mistral_v11;
mod phi4_mini;
mod qwen3_coder;

use super::Format;

/// See the module.
pub(super) const ALL: &[&Format] = &[
    &harmony::FORMAT,
    &qwen3_coder::FORMAT,
    &glm::FORMAT,
    &kimi_k2::FORMAT,
    &deepseek_v3::FORMAT,
    &deepseek_v31::FORMAT,
    &mistral_v11::FORMAT,
    &mistral::FORMAT,
    &command_r7b::FORMAT,
    &command_r::FORMAT,
    &phi4_mini::FORMAT,
    &granite::FORMAT,
    &llama_pythonic::FORMAT,
    &llama_json::FORMAT,
    &hermes::FORMAT,
    &generic::FORMAT,
];
