//! `POST /v1/completions`, from bytes to [`CompletionRequest`].
//! Source: OpenAI's API reference; extras as vLLM names them.

use serde_json::Value;

use super::{decoding, policy};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed, bound, token};
use crate::json;
use crate::limits::Limits;
use crate::request::{CompletionRequest, Prompt};

/// What the API reference gives where a request says nothing.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Parses a completion request.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<CompletionRequest, ApiError> {
    let value = json::parse(body)?;
    Ok(read(Fields::of(&value)?, limits)?)
}

fn read(fields: Fields<'_>, limits: &Limits) -> Parsed<CompletionRequest> {
    policy::apply(fields, &[policy::COMMON, policy::COMPLETION])?;
    let model = fields.required_string("model")?.to_owned();
    let prompts = prompts(fields, "prompt", limits.prompts_max)?;
    let echo = fields.boolean("echo", false)?;
    let mut decoding = decoding::parse(fields, limits)?;
    decoding.logprobs = decoding::legacy_logprobs(fields, limits)?;
    // No new token at all is of use only to those who want the prompt back, with its scores.
    let least = u32::from(!echo && decoding.prompt_logprobs.is_none());
    let most = fields.natural("max_tokens", least..=u32::MAX)?;
    decoding.max_tokens = Some(most.unwrap_or(MAX_TOKENS_DEFAULT.max(decoding.min_tokens)));
    decoding::check_lengths(&decoding)?;
    let choices = usize::try_from(decoding.choices).unwrap_or(usize::MAX);
    let most = usize::try_from(limits.choices_max).unwrap_or(usize::MAX);
    if prompts.len().saturating_mul(choices) > most {
        let why = format!("prompts times 'n' may be at most {most}");
        return Err(Fault::range("n", why, "integer_above_max_value"));
    }
    let add_special_tokens = fields.boolean("add_special_tokens", true)?;
    Ok(CompletionRequest { model, prompts, echo, add_special_tokens, decoding })
}

/// A text, tokens, or a list of either.
pub(super) fn prompts(fields: Fields<'_>, name: &str, max: usize) -> Parsed<Vec<Prompt>> {
    let items = match fields.get(name) {
        None => return Err(Fault::missing(name)),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(Fault::kind(name, "a string or an array", other)),
    };
    let Some(first) = items.first() else {
        return Err(Fault::range(name, "expected at least one item", "empty_array"));
    };
    if first.is_number() {
        return Ok(vec![Prompt::Tokens(fields.each(name, usize::MAX, token)?)]);
    }
    bound(items.len(), max).map_err(|f| f.under(name))?;
    fields.each(name, max, |item| match item {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(ids) if ids.is_empty() => {
            let why = "expected at least one token";
            Err(Fault::range("", why, "empty_array"))
        }
        Value::Array(ids) => {
            let mut out = Vec::with_capacity(ids.len());
            for (index, id) in ids.iter().enumerate() {
                out.push(token(id).map_err(|f| f.under(&format!("[{index}]")))?);
            }
            Ok(Prompt::Tokens(out))
        }
        other => Err(Fault::kind("", "a string or an array of token ids", other)),
    })
}
