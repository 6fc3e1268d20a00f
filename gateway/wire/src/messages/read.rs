//! A provider's whole answers and errors. What the dialect may add one day (unknown fields and
//! kinds of blocks) is skipped.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{seal, usage};
use crate::answer::{Answer, Call, Choice, Finish};
use crate::error::{ApiError, ErrorKind};
use crate::piece::Broken;
use crate::provider;
use crate::request::{Seal, Thought};

/// A text that is copied only where it has escapes; `null` is an empty one.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// A block, with the fields of all kinds.
#[derive(Debug, Deserialize)]
pub(super) struct Block<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Text<'a>,
    #[serde(borrow, default)]
    pub(super) thinking: Text<'a>,
    #[serde(borrow, default)]
    pub(super) signature: Text<'a>,
    #[serde(borrow, default)]
    pub(super) data: Text<'a>,
    #[serde(borrow, default)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) input: Option<&'a RawValue>,
}

/// Why a message ended.
#[derive(Debug, Default, Deserialize)]
pub(super) struct End<'a> {
    #[serde(borrow, default)]
    pub(super) stop_reason: Text<'a>,
    #[serde(borrow, default)]
    pub(super) stop_sequence: Text<'a>,
    #[serde(borrow, default)]
    stop_details: Option<Details<'a>>,
}

#[derive(Debug, Deserialize)]
struct Details<'a> {
    #[serde(borrow, default)]
    explanation: Text<'a>,
}

impl End<'_> {
    /// `calls`: the message has some.
    pub(super) fn finish(&self, calls: bool) -> Finish {
        usage::finish(Some(&*self.stop_reason.0).filter(|reason| !reason.is_empty()), calls)
    }

    /// The caller's text that ended it.
    pub(super) fn stop(&self) -> Option<&str> {
        (self.stop_reason.0 == "stop_sequence").then_some(&*self.stop_sequence.0)
    }

    /// Why it was refused, in words.
    pub(super) fn refusal(&self) -> Option<&str> {
        let details = self.stop_details.as_ref().filter(|_| self.stop_reason.0 == "refusal");
        details.map(|details| &*details.explanation.0).filter(|words| !words.is_empty())
    }
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(borrow)]
    content: Vec<Block<'a>>,
    #[serde(borrow, flatten)]
    end: End<'a>,
    usage: Option<usage::Said>,
}

/// Reads a whole answer.
///
/// # Errors
/// It is no message.
pub fn read_answer(body: &[u8]) -> Result<Answer, Broken> {
    let message: Message<'_> = provider::json(provider::utf8(body)?)?;
    if message.kind.0 != "message" {
        return Err(Broken("it is no message".into()));
    }
    let mut choice = Choice::text(0, "", Finish::Stop);
    for block in message.content {
        take(&mut choice, block);
    }
    choice.finish = message.end.finish(!choice.tool_calls.is_empty());
    choice.stop = message.end.stop().map(str::to_owned);
    choice.refusal = message.end.refusal().map(str::to_owned);
    Ok(Answer {
        id: message.id.0.into_owned(),
        model: message.model.0.into_owned(),
        choices: vec![choice],
        usage: message.usage.map(|said| said.usage()),
    })
}

fn take(choice: &mut Choice, block: Block<'_>) {
    match &*block.kind.0 {
        "text" => choice.text.push_str(&block.text.0),
        "thinking" => choice.thoughts.push(Thought {
            seal: seal::of(&block.signature.0),
            text: block.thinking.0.into_owned(),
        }),
        "redacted_thinking" => choice.thoughts.push(Thought {
            text: String::new(),
            seal: Some(Seal::Redacted(block.data.0.into_owned())),
        }),
        "tool_use" => choice.tool_calls.push(Call {
            id: block.id.0.into_owned(),
            name: block.name.0.into_owned(),
            arguments: block.input.map_or("{}", RawValue::get).to_owned(),
        }),
        _ => {}
    }
}

/// Reads an error: its kind from what it calls itself, else from the status.
#[must_use]
pub fn read_error(status: u16, body: &[u8]) -> ApiError {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    error_of(status, value.as_ref())
}

/// The same of a parsed body.
pub(super) fn error_of(status: u16, body: Option<&Value>) -> ApiError {
    let error = body.and_then(|body| body.get("error"));
    let mut read = provider::error_of(status, error);
    let kind = error.and_then(|error| error.get("type")).and_then(Value::as_str);
    read.kind = match kind.unwrap_or_default() {
        "invalid_request_error" => ErrorKind::Invalid,
        "authentication_error" => ErrorKind::Unauthorized,
        "permission_error" => ErrorKind::Forbidden,
        "not_found_error" => ErrorKind::NotFound,
        "request_too_large" => ErrorKind::TooLarge,
        "rate_limit_error" => ErrorKind::Overloaded,
        "timeout_error" => ErrorKind::Deadline,
        "overloaded_error" => ErrorKind::Unavailable,
        "billing_error" => ErrorKind::Quota,
        "api_error" => ErrorKind::Internal,
        _ => read.kind,
    };
    let code = error.and_then(|error| error.get("details")?.get("error_code")?.as_str());
    if let Some(code) = code.filter(|code| !code.is_empty()) {
        read.code = Some(Cow::Owned(provider::words(code, provider::CODE_BYTES_MAX)));
    }
    read
}
