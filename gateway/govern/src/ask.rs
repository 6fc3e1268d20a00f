//! What a request wants, in numbers and names: all that rules and prices look at.

use std::sync::Arc;

use crate::ledger::ServiceTier;
use crate::policy::Label;

/// What serves an answer that is given again.
pub const CACHE: &str = "cache";

/// A request that is about to be served, tokenized and not yet begun.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// The model that the caller asks for: policies and rates look at it.
    pub model: String,
    /// The model that will answer, where that is another one: prices and budgets look at it.
    pub answers: Option<String>,
    /// What serves it: a provider's or a node's name; empty: this process.
    pub backend: String,
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
    /// How it asks to be served.
    pub service_tier: ServiceTier,
    /// The label that the request brings along.
    pub label: Option<Label>,
    /// The arm of an experiment that who answers stands for; empty: none.
    pub arm: Arc<str>,
    /// The request's id, as its answer shows it.
    pub request_id: Arc<str>,
    /// The address that it came from.
    pub source: Arc<str>,
}

impl Ask {
    /// This process serves it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.backend.is_empty()
    }

    /// The model that will answer.
    #[must_use]
    pub fn answering(&self) -> &str {
        self.answers.as_deref().unwrap_or(&self.model)
    }
}
