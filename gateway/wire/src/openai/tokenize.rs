//! `POST /tokenize` and `POST /detokenize`, with vLLM's names.

use serde_json::{Value, json};

use super::{chat, message, tools};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed, token};
use crate::json;
use crate::limits::Limits;
use crate::request::{DetokenizeRequest, TokenizeInput, TokenizeRequest};

/// Parses a request for tokens.
///
/// # Errors
/// The first field that is missing, unknown or wrong, by its path.
pub fn parse_tokenize(body: &[u8], limits: &Limits) -> Result<TokenizeRequest, ApiError> {
    let value = json::parse(body)?;
    Ok(tokenize(Fields::of(&value)?, limits)?)
}

/// Parses a request for text.
///
/// # Errors
/// The first field that is missing, unknown or wrong, by its path.
pub fn parse_detokenize(body: &[u8]) -> Result<DetokenizeRequest, ApiError> {
    let value = json::parse(body)?;
    Ok(detokenize(Fields::of(&value)?)?)
}

fn tokenize(fields: Fields<'_>, limits: &Limits) -> Parsed<TokenizeRequest> {
    let text = ["model", "prompt", "add_special_tokens", "return_token_strs"];
    let chat = [
        "model",
        "messages",
        "add_special_tokens",
        "return_token_strs",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template_kwargs",
    ];
    let input = match (fields.string("prompt")?, fields.get("messages")) {
        (Some(_), Some(_)) => {
            return Err(Fault::value("prompt", "send either 'prompt' or 'messages'"));
        }
        (Some(prompt), None) => {
            fields.only(&text)?;
            let add_special_tokens = fields.boolean("add_special_tokens", true)?;
            TokenizeInput::Text { prompt: prompt.to_owned(), add_special_tokens }
        }
        (None, Some(_)) => {
            fields.only(&chat)?;
            let messages = message::parse_all(fields, limits)?;
            let template = Box::new(chat::template(fields, &messages)?);
            TokenizeInput::Chat { tools: tools::parse(fields, limits)?, messages, template }
        }
        (None, None) => return Err(Fault::missing("prompt")),
    };
    Ok(TokenizeRequest {
        model: fields.string("model")?.map(str::to_owned),
        input,
        return_token_strs: fields.boolean("return_token_strs", false)?,
    })
}

fn detokenize(fields: Fields<'_>) -> Parsed<DetokenizeRequest> {
    fields.only(&["model", "tokens"])?;
    if fields.get("tokens").is_none() {
        return Err(Fault::missing("tokens"));
    }
    Ok(DetokenizeRequest {
        model: fields.string("model")?.map(str::to_owned),
        tokens: fields.each("tokens", usize::MAX, token)?,
    })
}

/// The answer of `/tokenize`.
#[must_use]
pub fn tokenize_answer(tokens: &[u32], context: usize, strs: Option<&[String]>) -> Value {
    json!({"count": tokens.len(), "max_model_len": context, "tokens": tokens, "token_strs": strs})
}

/// The answer of `/detokenize`.
#[must_use]
pub fn detokenize_answer(text: &str) -> Value {
    json!({"prompt": text})
}
