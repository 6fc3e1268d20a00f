//! `POST /v1/chat/completions`, from bytes to [`ChatRequest`].
//! Source: OpenAI's API reference; extras as vLLM names them.

use serde_json::Value;

use super::{decoding, message, policy};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;
use crate::request::{ChatRequest, Content, Message, Template, ToolChoice};

/// Parses a chat request.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
    let value = json::parse(body)?;
    Ok(read(Fields::of(&value)?, limits)?)
}

fn read(fields: Fields<'_>, limits: &Limits) -> Parsed<ChatRequest> {
    policy::apply(fields, &[policy::COMMON, policy::CHAT])?;
    let model = fields.required_string("model")?.to_owned();
    let messages = message::parse_all(fields, limits)?;
    let tools = message::tools(fields, limits)?;
    let tool_choice = tool_choice(fields, &tools)?;
    let template = template(fields, &messages)?;
    let mut decoding = decoding::parse(fields, limits)?;
    decoding.max_tokens = max_tokens(fields)?;
    decoding.logprobs = logprobs(fields, limits)?;
    decoding::check_lengths(&decoding)?;
    Ok(ChatRequest { model, messages, tools, tool_choice, template, decoding })
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

fn tool_choice(fields: Fields<'_>, tools: &[Value]) -> Parsed<ToolChoice> {
    let forced = "a call cannot be forced in this version; use 'auto' or 'none'";
    let choice = match fields.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(s)) if s == "auto" => ToolChoice::Auto,
        Some(Value::String(s)) if s == "none" => ToolChoice::None,
        Some(Value::String(s)) if s == "required" => {
            return Err(Fault::unsupported("tool_choice", forced));
        }
        Some(Value::Object(_)) => return Err(Fault::unsupported("tool_choice", forced)),
        Some(Value::String(_)) => {
            return Err(Fault::value("tool_choice", "expected 'auto', 'none' or 'required'"));
        }
        Some(other) => return Err(Fault::kind("tool_choice", "a string or an object", other)),
    };
    let parallel = fields.boolean("parallel_tool_calls", true)?;
    if !parallel && !tools.is_empty() && choice == ToolChoice::Auto {
        let why = "the number of calls cannot be limited in this version";
        return Err(Fault::unsupported("parallel_tool_calls", why));
    }
    Ok(choice)
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
