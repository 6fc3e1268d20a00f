//! The internal answer model: what came back for a request, in no dialect's words.

use crate::request::Thought;

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end token, a stop token or a stop string.
    Stop,
    /// The token limit or the context length.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
    /// The model, or a filter behind it, would not go on.
    Refused,
}

/// What all parts of one answer share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its id, in the form of the dialect that is written (`chatcmpl-...`).
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, as the caller asked for it.
    pub model: String,
    /// How it was served, where the caller asked for another way than the usual.
    pub service_tier: Option<&'static str>,
}

/// A call of a tool that the model made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The call's id, which the tool's result will repeat.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

/// One of the most probable tokens at a position.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// Its id.
    pub id: u32,
    /// Its bytes, which need not be UTF-8 on their own.
    pub bytes: Vec<u8>,
    /// Natural log of its probability.
    pub logprob: f32,
}

/// The token at a position, and what else might have stood there.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub id: u32,
    /// Its bytes, which need not be UTF-8 on their own.
    pub bytes: Vec<u8>,
    /// Natural log of its probability; `None` where nothing predicts it (a prompt's first token).
    pub logprob: Option<f32>,
    /// Its rank, from 1; 0 where unknown.
    pub rank: u32,
    /// The most probable tokens, best first.
    pub top: Vec<TopLogprob>,
    /// Left out of the text (a special token): it moves no text offset.
    pub hidden: bool,
}

impl TokenLogprob {
    /// Characters that begin in this token and are part of the text. A character that is spread
    /// over tokens belongs to the first of them.
    #[must_use]
    pub fn chars(&self) -> usize {
        let starts = self.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        if self.hidden { 0 } else { starts }
    }
}

/// A provider's whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the provider calls it.
    pub id: String,
    /// The model that answered, in the provider's words.
    pub model: String,
    /// At least one.
    pub choices: Vec<Choice>,
    /// Tokens; `None` where the provider does not say.
    pub usage: Option<Usage>,
}

/// One finished continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its number, from 0.
    pub index: u32,
    /// Its text, without thoughts and calls.
    pub text: String,
    /// Thoughts before the text, where there are some and the caller wants them.
    pub thoughts: Vec<Thought>,
    /// Why the model will not answer, in words.
    pub refusal: Option<String>,
    /// Calls of tools, in their order.
    pub tool_calls: Vec<Call>,
    /// Why it ended.
    pub finish: Finish,
    /// The caller's text that ended it, where it is known.
    pub stop: Option<String>,
    /// When asked for: one per token.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// When asked for.
    pub token_ids: Option<Vec<u32>>,
    /// When asked for: the prompt's tokens.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// When asked for: one per prompt token, the first without a value.
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
}

impl Choice {
    /// A text and its end.
    pub fn text(index: u32, text: impl Into<String>, finish: Finish) -> Self {
        Self {
            index,
            text: text.into(),
            thoughts: Vec::new(),
            refusal: None,
            tool_calls: Vec::new(),
            finish,
            stop: None,
            logprobs: None,
            token_ids: None,
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }

    /// The same with calls.
    #[must_use]
    pub fn with_calls(self, tool_calls: Vec<Call>) -> Self {
        Self { tool_calls, ..self }
    }
}

/// Tokens read and made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt (of all prompts).
    pub prompt_tokens: u64,
    /// Of these, taken from the prefix cache.
    pub cached_tokens: u64,
    /// Of these, written to a provider's cache, which some are paid extra for.
    pub cache_write_tokens: u64,
    /// Tokens made, over all choices.
    pub completion_tokens: u64,
    /// Of these, thoughts.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Adds another prompt's usage.
    pub fn add(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.completion_tokens += other.completion_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }
}
