//! `POST /v1/completions`, from bytes to [`CompletionRequest`]; or to a chat, for a provider that
//! has no other word for it. Source: OpenAI's API reference; extras as vLLM names them.

use serde_json::Value;

use super::policy::Rule;
use super::{chat, decoding, policy, reasoning};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed, bound, token};
use crate::json;
use crate::limits::Limits;
use crate::request::{
    ChatRequest, CompletionRequest, Message, Prompt, Reasoning, Role, Template, ToolChoice,
};

/// What the API reference gives where a request says nothing.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Bytes of a prompt that is repeated by us, in all choices together.
const REPEATED_BYTES_MAX: usize = 16 << 20;

/// Parses a completion request.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<CompletionRequest, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    policy::apply(fields, TABLES)?;
    Ok(read(fields, limits)?)
}

/// Parses a completion request that is to be passed on in another dialect, all of which are of
/// chats: the prompt is what a user says. Beside it is the text that the answers begin with, where
/// the prompt is to be repeated: no chat does that.
///
/// # Errors
/// The first field that is missing, wrong or of no meaning in a chat, by its path.
pub fn parse_forward(
    body: &[u8],
    limits: &Limits,
) -> Result<(ChatRequest, Option<String>), ApiError> {
    let value = json::parse(body)?;
    Ok(read_forward(Fields::of(&value)?, limits)?)
}

/// What a request may carry.
const TABLES: &[&[(&str, Rule)]] = &[policy::COMMON, policy::COMPLETION];

/// And one that a chat is made of.
const TABLES_OF_CHAT: &[&[(&str, Rule)]] = &[policy::COMMON, policy::COMPLETION, policy::THOUGHTS];

fn read_forward(fields: Fields<'_>, limits: &Limits) -> Parsed<(ChatRequest, Option<String>)> {
    // First what would be sound, and no chat: whoever completes texts may still be asked.
    let text = only_text(fields)?;
    let scored = fields.get("logprobs").is_some();
    let echo = fields.boolean("echo", false)?;
    let suffix = fields.string("suffix")?.is_some_and(|suffix| !suffix.is_empty());
    let silent = fields.natural("max_tokens", 0..=u32::MAX)? == Some(0);
    for (name, said, why) in [
        ("suffix", suffix, "the answer of a chat has nothing behind it"),
        ("max_tokens", silent, "a chat has an answer"),
        ("echo", echo && scored, "a chat has no 'logprobs' of what is asked"),
    ] {
        if said {
            return Err(Fault::unsupported(name, why));
        }
    }
    let CompletionRequest { model, add_special_tokens, mut decoding, .. } = read(fields, limits)?;
    let choices = usize::try_from(decoding.choices).unwrap_or(usize::MAX);
    if echo && text.len().saturating_mul(choices) > REPEATED_BYTES_MAX {
        let why = format!("at most {REPEATED_BYTES_MAX} bytes are repeated, in all choices");
        return Err(Fault::unsupported("echo", why));
    }
    let mut extra = policy::beyond(fields, TABLES_OF_CHAT);
    // They are about the tokens of a prompt that no chat has.
    let tokens = [
        ("add_special_tokens", !add_special_tokens),
        ("prompt_logprobs", decoding.prompt_logprobs.take().is_some()),
        ("return_token_ids", std::mem::take(&mut decoding.return_token_ids)),
    ];
    for (name, _) in tokens.into_iter().filter(|(_, said)| *said) {
        extra.insert(name.into(), fields.get(name).cloned().unwrap_or_default());
    }
    let chat = ChatRequest {
        model,
        messages: vec![Message::text(Role::User, text)],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        // A text has no place for them.
        reasoning: Reasoning { include: false, ..reasoning::parse(fields)? },
        template: Template::default(),
        decoding,
        user: chat::user(fields)?,
        metadata: chat::metadata(fields),
        extra,
    };
    Ok((chat, echo.then(|| text.to_owned())))
}

/// The prompt, where it can be what a user says.
fn only_text(fields: Fields<'_>) -> Parsed<&str> {
    let why = match fields.get("prompt") {
        None => return Err(Fault::missing("prompt")),
        Some(Value::String(text)) if text.is_empty() => "a chat begins with words",
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Array(items)) => match &items[..] {
            [Value::String(text)] if !text.is_empty() => return Ok(text),
            [Value::String(_), _, ..] => "a chat has one answer: send one prompt in a request",
            _ => "a chat is text, and no token ids",
        },
        Some(other) => return Err(Fault::kind("prompt", "a string or an array", other)),
    };
    Err(Fault::unsupported("prompt", why))
}

fn read(fields: Fields<'_>, limits: &Limits) -> Parsed<CompletionRequest> {
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
