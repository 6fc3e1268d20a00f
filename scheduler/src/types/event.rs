//! What the scheduler reports. For each request: any number of `PromptLogprobs`, `Token` and
//! `ChoiceEnd`, then exactly one `End`; or exactly one `Refused`.

use super::{Logprobs, PromptLogprobs, RequestId, Token};

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// One of the request's stop tokens was drawn; it was reported as the last `Token`.
    Stop,
    /// `max_tokens`, the allowance or the context length was reached.
    Length,
    /// `Cancel` or `CancelChoice`.
    Cancelled,
}

/// Why a request could not be served, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A field is out of range: the field's name and what is wrong.
    Invalid(&'static str, String),
    /// Prompt plus at least one token exceed the context length or the whole page pool (tokens).
    TooLong {
        /// Tokens that the request needs at least.
        needed: usize,
        /// Tokens that there can be.
        limit: usize,
    },
    /// The waiting line is full.
    Overloaded,
    /// Its deadline passed.
    Deadline,
    /// The engine failed for this request, with the engine's own words.
    Engine(String),
}

/// What one request used, for bills and for "why was this slow". Times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, taken from the prefix cache.
    pub cached_tokens: u32,
    /// Tokens made, over all choices.
    pub completion_tokens: u32,
    /// From submission to the first step that ran it.
    pub queue_us: u64,
    /// From the first step that ran it to its first token.
    pub prefill_us: u64,
    /// From its first token to its end.
    pub decode_us: u64,
    /// Times that it lost its pages and was computed again.
    pub preemptions: u32,
}

/// One report. Events of one request come in order; requests interleave.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Log-probabilities of a stretch of the prompt, in order, each stretch once.
    PromptLogprobs(RequestId, PromptLogprobs),
    /// A token was made.
    Token {
        /// The request.
        id: RequestId,
        /// The choice, from 0.
        choice: u32,
        /// The token.
        token: Token,
        /// When asked for.
        logprobs: Option<Box<Logprobs>>,
    },
    /// A choice ended.
    ChoiceEnd {
        /// The request.
        id: RequestId,
        /// The choice, from 0.
        choice: u32,
        /// Why.
        reason: Finish,
    },
    /// All choices ended; the request holds nothing any more.
    End(RequestId, Usage),
    /// The request ended without (or before) its natural end; it holds nothing any more.
    Refused(RequestId, Refusal, Usage),
}
