//! The JSON of an answer, whole or in chunks, as far as anything of it is read.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::{TokenLogprob, TopLogprob, Usage};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chunk<'a> {
    #[serde(default, borrow)]
    pub(super) candidates: Option<Vec<Candidate<'a>>>,
    #[serde(default)]
    pub(super) prompt_feedback: Option<Feedback>,
    #[serde(default)]
    pub(super) usage_metadata: Option<Tokens>,
    #[serde(default)]
    pub(super) model_version: Option<String>,
    #[serde(default)]
    pub(super) response_id: Option<String>,
    #[serde(default)]
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Feedback {
    #[serde(default)]
    pub(super) block_reason: Option<String>,
    #[serde(default)]
    pub(super) block_reason_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(default)]
    pub(super) index: u32,
    #[serde(default, borrow)]
    pub(super) content: Option<Parts<'a>>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
    #[serde(default)]
    pub(super) finish_message: Option<String>,
    #[serde(default)]
    pub(super) logprobs_result: Option<Logprobs>,
}

#[derive(Deserialize)]
pub(super) struct Parts<'a> {
    #[serde(default, borrow)]
    pub(super) parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) thought: Option<bool>,
    #[serde(default)]
    pub(super) thought_signature: Option<String>,
    #[serde(default, borrow)]
    pub(super) function_call: Option<FunctionCall<'a>>,
}

#[derive(Deserialize)]
pub(super) struct FunctionCall<'a> {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default, borrow)]
    pub(super) args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Logprobs {
    #[serde(default)]
    pub(super) chosen_candidates: Vec<Token>,
    #[serde(default)]
    pub(super) top_candidates: Vec<Top>,
}

#[derive(Deserialize)]
pub(super) struct Top {
    #[serde(default)]
    pub(super) candidates: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Token {
    #[serde(default)]
    pub(super) token: String,
    #[serde(default)]
    pub(super) token_id: u32,
    #[serde(default)]
    pub(super) log_probability: f32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tokens {
    #[serde(default)]
    pub(super) prompt_token_count: u64,
    #[serde(default)]
    pub(super) cached_content_token_count: u64,
    #[serde(default)]
    pub(super) candidates_token_count: u64,
    #[serde(default)]
    pub(super) thoughts_token_count: u64,
    #[serde(default)]
    pub(super) tool_use_prompt_token_count: u64,
}

impl Tokens {
    /// Google counts thoughts beside the candidates.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_token_count.saturating_add(self.tool_use_prompt_token_count),
            cached_tokens: self.cached_content_token_count,
            cache_write_tokens: 0,
            completion_tokens: self
                .candidates_token_count
                .saturating_add(self.thoughts_token_count),
            reasoning_tokens: self.thoughts_token_count,
        }
    }
}

impl Logprobs {
    pub(super) fn entries(self) -> Vec<TokenLogprob> {
        let mut tops = self.top_candidates.into_iter();
        let mut entry = |token: Token| TokenLogprob {
            id: token.token_id,
            bytes: token.token.into_bytes(),
            logprob: Some(token.log_probability),
            rank: 0,
            top: tops
                .next()
                .map(|top| top.candidates)
                .unwrap_or_default()
                .into_iter()
                .map(top)
                .collect(),
            hidden: false,
        };
        self.chosen_candidates.into_iter().map(&mut entry).collect()
    }
}

fn top(token: Token) -> TopLogprob {
    TopLogprob {
        id: token.token_id,
        bytes: token.token.into_bytes(),
        logprob: token.log_probability,
    }
}
