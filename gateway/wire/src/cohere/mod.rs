//! Cohere's dialect, as far as it is ranking: `POST /v2/rerank`, both ways, and its errors.
//! Source: Cohere's API reference, version 2.

mod rerank;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::provider;

pub use rerank::{DOCUMENT_TOKENS, answer, parse, read_answer, render};

/// The body of an error: its words, and the request's id.
#[must_use]
pub fn error(error: &ApiError, request_id: &str) -> Vec<u8> {
    json!({ "id": request_id, "message": error.message }).to_string().into_bytes()
}

/// A provider's error: words beside an id, and the status for the rest.
#[must_use]
pub fn read_error(status: u16, body: &[u8]) -> ApiError {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    provider::error_of(status, value.as_ref())
}
