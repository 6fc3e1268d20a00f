//! Whole answers, counts and errors as Anthropic's JSON, written straight into bytes.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, json};

use super::{seal, usage};
use crate::answer::{Call, Choice, Head, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::json::put;
use crate::request::{Seal, Thought};

/// A message. The dialect has one choice: the first of `choices`, of which there is at least one.
///
/// # Panics
/// There is no choice.
#[must_use]
pub fn answer(head: &Head, choices: &[Choice], usage: &Usage) -> Vec<u8> {
    let choice = choices.first().expect("an answer has a choice");
    let mut out = Vec::with_capacity(512 + choice.text.len());
    open(&mut out, head);
    out.extend_from_slice(b"\"content\":[");
    for thought in &choice.thoughts {
        put_thought(&mut out, thought);
    }
    for text in [Some(&choice.text), choice.refusal.as_ref()].into_iter().flatten() {
        if !text.is_empty() {
            out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
            put(&mut out, text);
            out.extend_from_slice(b"},");
        }
    }
    for call in &choice.tool_calls {
        put_call(&mut out, call);
    }
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"],");
    usage::write_end(&mut out, choice.finish, choice.stop.as_deref());
    out.extend_from_slice(b",\"usage\":");
    usage::write(&mut out, usage);
    out.push(b'}');
    out
}

/// `{"id":..,"type":"message","role":"assistant","model":..,`
pub(super) fn open(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(b"{\"id\":");
    put(out, &head.id);
    out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    put(out, &head.model);
    out.push(b',');
}

/// One block and a comma.
fn put_thought(out: &mut Vec<u8>, thought: &Thought) {
    if let Some(Seal::Redacted(data)) = &thought.seal {
        out.extend_from_slice(b"{\"type\":\"redacted_thinking\",\"data\":");
        put(out, data);
    } else if thought.text.is_empty() && thought.seal.is_none() {
        return;
    } else {
        out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
        put(out, &thought.text);
        out.extend_from_slice(b",\"signature\":");
        put(out, &*seal::signature(thought.seal.as_ref().map(seal::as_ref)));
    }
    out.extend_from_slice(b"},");
}

/// One block and a comma.
fn put_call(out: &mut Vec<u8>, call: &Call) {
    out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
    put(out, &call.id);
    out.extend_from_slice(b",\"name\":");
    put(out, &call.name);
    out.extend_from_slice(b",\"input\":");
    out.extend_from_slice(input(&call.arguments).as_bytes());
    out.extend_from_slice(b"},");
}

/// Arguments as the JSON object that the dialect wants. Text that is none (a call that was cut, or
/// a model's mistake) is kept as the object's only value, so that whoever reads it sees it.
pub(super) fn input(arguments: &str) -> Cow<'_, str> {
    let text = arguments.trim_ascii();
    if text.is_empty() {
        return "{}".into();
    }
    // Depth is bounded by the parser; values are looked at, not built.
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) if text.starts_with('{') => text.into(),
        _ => json!({"arguments": arguments}).to_string().into(),
    }
}

/// The answer of `count_tokens`.
#[must_use]
pub fn count_answer(tokens: u64) -> Vec<u8> {
    json!({"input_tokens": tokens}).to_string().into_bytes()
}

/// `{"type":"error",...}`. An `overloaded_error` is the server's own state, a `rate_limit_error`
/// the caller's limit. The code that programs decide on stands where Anthropic's packages look
/// for it.
#[must_use]
pub fn error(error: &ApiError, request_id: &str) -> Vec<u8> {
    let kind = match error.kind {
        ErrorKind::Invalid | ErrorKind::Method => "invalid_request_error",
        ErrorKind::Unauthorized => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::Timeout | ErrorKind::Deadline => "timeout_error",
        ErrorKind::Overloaded if error.code.as_deref() != Some("overloaded") => "rate_limit_error",
        ErrorKind::Overloaded | ErrorKind::Unavailable => "overloaded_error",
        ErrorKind::Quota => "billing_error",
        ErrorKind::Upstream | ErrorKind::Internal => "api_error",
    };
    let mut body = Map::new();
    body.insert("type".into(), kind.into());
    body.insert("message".into(), error.message.as_str().into());
    if let Some(code) = &error.code {
        body.insert("details".into(), json!({"error_code": code}));
    }
    json!({"type": "error", "error": body, "request_id": request_id}).to_string().into_bytes()
}
