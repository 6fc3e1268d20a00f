//! `POST /v1/messages` and `/v1/messages/count_tokens`, from bytes to [`ChatRequest`].

use serde_json::Value;

use super::aside::Aside;
use super::{policy, thinking, tools, turns};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;
use crate::openai::policy::Rule;
use crate::request::{ChatRequest, Decoding, Role, StreamOptions, Template};

/// What a request may carry.
const TABLES: &[&[(&str, Rule)]] = &[policy::REQUEST];

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It is answered here.
    Answer,
    /// Its tokens are counted here.
    Count,
}

/// Parses a request that is answered here.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
    read(body, limits, (Purpose::Answer, false))
}

/// Parses a request whose tokens are to be counted: as [`parse`], but `max_tokens` may be absent.
/// `forward`: what cannot be honoured here is kept in [`ChatRequest::extra`], by its path.
///
/// # Errors
/// As [`parse`].
pub fn parse_count(body: &[u8], limits: &Limits, forward: bool) -> Result<ChatRequest, ApiError> {
    read(body, limits, (Purpose::Count, forward))
}

/// Parses a request that is to be passed on in another dialect: fields, blocks and tools that
/// cannot be honoured here are kept in [`ChatRequest::extra`], under their paths, not refused.
///
/// # Errors
/// The first field that is missing or wrong, by its path.
pub fn parse_forward(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
    read(body, limits, (Purpose::Answer, true))
}

fn read(
    body: &[u8],
    limits: &Limits,
    (purpose, forward): (Purpose, bool),
) -> Result<ChatRequest, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    let aside = Aside::new(fields, TABLES, forward)?;
    Ok(chat(fields, limits, purpose, aside)?)
}

fn chat(
    fields: Fields<'_>,
    limits: &Limits,
    purpose: Purpose,
    mut put_aside: Aside,
) -> Parsed<ChatRequest> {
    let model = fields.required_string("model")?.to_owned();
    let max_tokens = fields.natural("max_tokens", 1..=u32::MAX)?;
    if max_tokens.is_none() && purpose != Purpose::Count {
        return Err(Fault::missing("max_tokens"));
    }
    let aside = &mut put_aside;
    let messages = turns::parse(fields, limits, aside)?;
    let tools = tools::parse(fields, limits, aside)?;
    let (tool_choice, parallel_tool_calls) = tools::choice(fields, &tools, aside)?;
    let reasoning = thinking::reasoning(fields, max_tokens, aside)?;
    let user = user(fields, aside)?;
    context_management(fields, aside)?;
    // A turn of the assistant at the end is the start of the answer.
    let prefill = messages.last().is_some_and(|last| last.role == Role::Assistant);
    Ok(ChatRequest {
        model,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls,
        reasoning,
        template: Template {
            add_generation_prompt: !prefill,
            continue_final_message: prefill,
            ..Template::default()
        },
        decoding: decoding(fields, limits, max_tokens)?,
        user,
        metadata: serde_json::Map::new(),
        extra: put_aside.into_extra(),
    })
}

fn decoding(fields: Fields<'_>, limits: &Limits, max_tokens: Option<u32>) -> Parsed<Decoding> {
    // Every answer of this dialect carries its usage.
    let options = StreamOptions { include_usage: true, continuous_usage: false };
    Ok(Decoding {
        max_tokens,
        temperature: fields.number("temperature", 0.0..=1.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        top_k: fields.natural("top_k", 0..=u32::MAX)?,
        stop: fields.each("stop_sequences", limits.stops_max, |value| stop(value, limits))?,
        structured: thinking::structured(fields)?,
        stream: fields.boolean("stream", false)?.then_some(options),
        ..Decoding::default()
    })
}

fn stop(value: &Value, limits: &Limits) -> Parsed<String> {
    match value {
        Value::String(text) if text.is_empty() => {
            Err(Fault::value("", "a stop sequence must not be empty"))
        }
        Value::String(text) if text.len() > limits.stop_bytes_max => {
            let why = format!("a stop sequence has at most {} bytes", limits.stop_bytes_max);
            Err(Fault::range("", why, "string_above_max_length"))
        }
        Value::String(text) => Ok(text.clone()),
        other => Err(Fault::kind("", "a string", other)),
    }
}

fn user(fields: Fields<'_>, aside: &mut Aside) -> Parsed<Option<String>> {
    let Some(metadata) = fields.object("metadata")? else { return Ok(None) };
    let mut read = || {
        aside.fields(|| "metadata".into(), metadata, policy::METADATA)?;
        Ok(metadata.string("user_id")?.map(str::to_owned))
    };
    read().map_err(|fault: Fault| fault.under("metadata"))
}

/// The conversation is read as it was sent: only edits that change nothing are accepted. Claude
/// Code sends one that keeps all thoughts.
fn context_management(fields: Fields<'_>, aside: &mut Aside) -> Parsed<()> {
    let Some(management) = fields.object("context_management")? else { return Ok(()) };
    let read = || {
        management.only(&["edits"])?;
        management.each("edits", 64, |value| {
            let edit = Fields::of(value)?;
            if edit.required_string("type")? != "clear_thinking_20251015" {
                let why = "the conversation is read as it was sent";
                return Err(Fault::unsupported("type", why));
            }
            crate::openai::policy::apply(edit, &[policy::EDIT])?;
            edit.get("keep").map(|_| ()).ok_or_else(|| {
                Fault::unsupported("keep", "thoughts are kept or not by the model's own template")
            })
        })
    };
    match (read(), fields.get("context_management")) {
        (Err(fault), Some(value)) => {
            let fault = fault.under("context_management");
            aside.whole(|| "context_management".into(), value, fault)
        }
        _ => Ok(()),
    }
}
