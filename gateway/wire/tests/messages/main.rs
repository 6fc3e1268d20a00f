//! Anthropic's dialect: what is accepted and refused, what a provider is sent, what clients read,
//! and what is made of a provider's answers.

mod answers;
mod claude;
mod client;
mod forward;
mod made;
mod properties;
mod reader;
mod refused;
mod render;
mod requests;
mod stream;

use serde_json::{Value, json};
use wire::{ApiError, ChatRequest, Limits, messages};

/// The least request, with `extra` over it.
fn body(extra: &Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn parse(extra: &Value) -> Result<ChatRequest, ApiError> {
    messages::parse(&body(extra), &Limits::default())
}

fn accept(extra: &Value) -> ChatRequest {
    parse(extra).unwrap_or_else(|error| panic!("{extra}: {error}"))
}

/// A request with these turns.
fn turns(turns: &Value) -> ChatRequest {
    accept(&json!({"messages": turns}))
}
