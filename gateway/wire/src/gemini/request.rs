//! `generateContent`, `streamGenerateContent` and `countTokens`, from bytes to [`ChatRequest`].
//! Source: the Gemini API's reference.

use serde_json::{Map, Value, json};

use super::policy::{self, Beyond};
use super::{config, contents, proto, tools};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;
use crate::request::{ChatRequest, StreamOptions, Template};

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// An answer, whole.
    Generate,
    /// An answer, as it is made.
    Stream,
    /// How many tokens a request has.
    Count,
}

/// The model and the method of a path's end: `NAME:generateContent`, what stands behind
/// `/v1beta/models/`. `None`: no such method, which is a route that is not there.
#[must_use]
pub fn route(end: &str) -> Option<(&str, Method)> {
    // Names of models have colons, too.
    let (model, method) = end.rsplit_once(':')?;
    let method = match method {
        "generateContent" => Method::Generate,
        "streamGenerateContent" => Method::Stream,
        "countTokens" => Method::Count,
        _ => return None,
    };
    (!model.is_empty()).then_some((model, method))
}

/// Parses a request for an answer of this model, as a stream or whole.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(
    model: &str,
    stream: bool,
    body: &[u8],
    limits: &Limits,
) -> Result<ChatRequest, ApiError> {
    let value = value(body)?;
    Ok(read(model, stream, Fields::of(&value)?, limits, Beyond::Refused)?)
}

/// Parses a request that is to be passed on in another dialect: what cannot be honoured here is
/// kept in [`ChatRequest::extra`] by its path, instead of refused.
///
/// # Errors
/// The first field that is missing or wrong, by its path.
pub fn parse_forward(
    model: &str,
    stream: bool,
    body: &[u8],
    limits: &Limits,
) -> Result<ChatRequest, ApiError> {
    let value = value(body)?;
    let fields = Fields::of(&value)?;
    // Without effect here, they may have one there.
    let safety = fields.get("safetySettings").map(|value| ("safetySettings".into(), value.clone()));
    let kept = Beyond::Kept(safety.into_iter().collect());
    Ok(read(model, stream, fields, limits, kept)?)
}

/// Parses a request for a count of tokens: contents alone, or a whole request in
/// `generateContentRequest`.
/// `forward`: what cannot be honoured here is kept in [`ChatRequest::extra`], by its path.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse_count(
    model: &str,
    body: &[u8],
    limits: &Limits,
    forward: bool,
) -> Result<ChatRequest, ApiError> {
    let value = value(body)?;
    let beyond = if forward { Beyond::Kept(Map::new()) } else { Beyond::Refused };
    let fields = Fields::of(&value)?;
    let Some(inner) = fields.object("generateContentRequest")? else {
        return Ok(read(model, false, fields, limits, beyond)?);
    };
    fields.only(&["model", "generateContentRequest"])?;
    let read = read(model, false, inner, limits, beyond);
    Ok(read.map_err(|fault| fault.under("generateContentRequest"))?)
}

/// The answer to a request for a count.
#[must_use]
pub fn count_answer(tokens: u64) -> Vec<u8> {
    let details = json!([{"modality": "TEXT", "tokenCount": tokens}]);
    json!({"totalTokens": tokens, "promptTokensDetails": details}).to_string().into_bytes()
}

fn value(body: &[u8]) -> Result<Value, ApiError> {
    let mut value = json::parse(body)?;
    proto::normalize(&mut value)?;
    Ok(value)
}

fn read(
    model: &str,
    stream: bool,
    fields: Fields<'_>,
    limits: &Limits,
    mut beyond: Beyond,
) -> Parsed<ChatRequest> {
    beyond.table("", fields, policy::REQUEST)?;
    if let Some(own) = fields.string("model")?
        && own.strip_prefix("models/").unwrap_or(own) != model
    {
        return Err(Fault::value("model", "it differs from the model in the path"));
    }
    let config::Config { mut decoding, reasoning, detail } =
        config::parse(fields, limits, &mut beyond)?;
    decoding.stream =
        stream.then_some(StreamOptions { include_usage: true, ..StreamOptions::default() });
    let system = contents::system(fields)?;
    let messages = contents::parse(fields, limits, detail)?;
    let (tools, tool_choice) = tools::parse(fields, limits, &mut beyond)?;
    fields.list("safetySettings", usize::MAX)?;
    Ok(ChatRequest {
        model: model.to_owned(),
        messages: system.into_iter().chain(messages).collect(),
        tools,
        tool_choice,
        parallel_tool_calls: true,
        reasoning,
        template: Template::default(),
        decoding,
        user: None,
        metadata: labels(fields)?,
        extra: beyond.into_kept(),
    })
}

fn labels(fields: Fields<'_>) -> Parsed<Map<String, Value>> {
    let labels = fields.map("labels")?;
    match labels.iter().find(|(_, value)| !value.is_string()) {
        Some((name, value)) => Err(Fault::kind(name, "a string", value).under("labels")),
        None => Ok(labels),
    }
}
