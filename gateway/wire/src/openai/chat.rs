//! `POST /v1/chat/completions`, from bytes to [`ChatRequest`].
//! Source: OpenAI's API reference; extras as vLLM names them.

use serde_json::{Map, Value};

use super::policy::Rule;
use super::{decoding, message, order, policy, reasoning, tools};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;
use crate::request::verbosity::Verbosity;
use crate::request::{ChatRequest, Content, Message, Template};

/// Parses a chat request.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    policy::apply(fields, TABLES)?;
    let mut request = read(fields, limits, Map::new())?;
    if let Some(wish) = Verbosity::of(fields)? {
        wish.say(&mut request.messages);
    }
    Ok(request)
}

/// Parses a chat request that is to be passed on in another dialect: what cannot be honoured here
/// may be there, so it is kept in [`ChatRequest::extra`] instead of refused.
///
/// # Errors
/// The first field that is missing or wrong, by its path.
pub fn parse_forward(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    let mut extra = policy::beyond(fields, TABLES);
    if let Some(wish) = Verbosity::of(fields)? {
        extra.insert("verbosity".into(), wish.name().into());
    }
    Ok(read(fields, limits, extra)?)
}

/// What a request may carry.
const TABLES: &[&[(&str, Rule)]] = &[policy::COMMON, policy::CHAT];

fn read(fields: Fields<'_>, limits: &Limits, extra: Map<String, Value>) -> Parsed<ChatRequest> {
    let model = fields.required_string("model")?.to_owned();
    let messages = message::parse_all(fields, limits)?;
    order::check(&messages)?;
    let tools = tools::parse(fields, limits)?;
    let tool_choice = tools::choice(fields, &tools, limits)?;
    let template = template(fields, &messages)?;
    let mut decoding = decoding::parse(fields, limits)?;
    decoding.max_tokens = max_tokens(fields)?;
    decoding.logprobs = logprobs(fields, limits)?;
    decoding::check_lengths(&decoding)?;
    Ok(ChatRequest {
        model,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls: fields.boolean("parallel_tool_calls", true)?,
        reasoning: reasoning::parse(fields)?,
        template,
        decoding,
        user: user(fields)?,
        metadata: metadata(fields),
        extra,
    })
}

/// Whom the caller asks for, by the older name or the newer one.
pub(super) fn user(fields: Fields<'_>) -> Parsed<Option<String>> {
    Ok(fields.string("user")?.or(fields.string("safety_identifier")?).map(str::to_owned))
}

/// The caller's notes on the request.
pub(super) fn metadata(fields: Fields<'_>) -> Map<String, Value> {
    fields.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The newer name and the older one; a client may send both if they agree.
fn max_tokens(fields: Fields<'_>) -> Parsed<Option<u32>> {
    let new = fields.natural("max_completion_tokens", 1..=u32::MAX)?;
    let old = fields.natural("max_tokens", 1..=u32::MAX)?;
    if new.is_some() && old.is_some() && new != old {
        return Err(Fault::value("max_tokens", "it differs from 'max_completion_tokens'"));
    }
    Ok(new.or(old))
}

fn logprobs(fields: Fields<'_>, limits: &Limits) -> Parsed<Option<u32>> {
    let on = fields.boolean("logprobs", false)?;
    let top = fields.natural("top_logprobs", 0..=limits.top_logprobs_max)?;
    match (on, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Fault::value("top_logprobs", "it needs 'logprobs': true")),
    }
}

/// The template's options. A chat that goes on with its last message has no room for the start
/// of a new one.
pub(crate) fn template(fields: Fields<'_>, messages: &[Message]) -> Parsed<Template> {
    let continued = fields.boolean("continue_final_message", false)?;
    let start = fields.boolean("add_generation_prompt", !continued)?;
    if continued && start {
        let why = "it cannot be combined with 'add_generation_prompt': true";
        return Err(Fault::value("continue_final_message", why));
    }
    let open = messages.last().is_some_and(|m| m.content != Content::Absent);
    if continued && !open {
        let why = "the last message has no content to go on with";
        return Err(Fault::value("continue_final_message", why));
    }
    let documents = fields.each("documents", 4096, |document| {
        Fields::of(document)?;
        Ok(document.clone())
    })?;
    Ok(Template {
        kwargs: fields.map("chat_template_kwargs")?,
        documents,
        add_generation_prompt: start,
        continue_final_message: continued,
        add_special_tokens: fields.boolean("add_special_tokens", false)?,
    })
}
