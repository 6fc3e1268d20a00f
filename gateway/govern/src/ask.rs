//! What a request wants, in numbers and names: all that rules and prices look at.

use crate::policy::Label;

/// A request that is about to be served, tokenized and not yet begun.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// The model that will answer, by its own name.
    pub model: String,
    /// The route's word: `chat`, `completion`, `embeddings`, `rerank`, `score`.
    pub surface: &'static str,
    /// Tokens of the prompt, as the model's own tokenizer counts them.
    pub input_tokens: u64,
    /// Choices per prompt; each may take `max_output`.
    pub choices: u32,
    /// New tokens per choice that the caller asks for; `None`: as many as there may be.
    pub max_output: Option<u32>,
    /// New tokens per choice that the context has room for; 0 where nothing is generated.
    pub room: u32,
    /// Tokens that may come at once, where a grammar forces them; 0: one at a time.
    pub burst: u32,
    /// Names of the tools that are offered to the model.
    pub tools: Vec<String>,
    /// The label that the request brings along.
    pub label: Option<Label>,
    /// The request's id, as its answer shows it.
    pub request_id: String,
    /// The address that it came from.
    pub source: String,
}
