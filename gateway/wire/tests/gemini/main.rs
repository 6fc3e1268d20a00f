//! Google's dialect: what is parsed and what is refused, what a provider is asked, what callers
//! read and what a provider's answers mean.

mod answers;
mod client;
mod properties;
mod reading;
mod refusals;
mod render;
mod requests;

use serde_json::Value;
use wire::{ApiError, ChatRequest, Limits, gemini};

/// Parses a request of the model `m`.
fn parse(body: &Value) -> Result<ChatRequest, ApiError> {
    gemini::parse("m", false, body.to_string().as_bytes(), &Limits::default())
}

#[track_caller]
fn parsed(body: &Value) -> ChatRequest {
    parse(body).unwrap_or_else(|error| panic!("{}: {body}", error.message))
}
