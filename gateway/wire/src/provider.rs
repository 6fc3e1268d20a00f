//! What is alike in the answers of all providers: how they are parsed, and what their errors mean.
//! A provider is a stranger: its words are bounded before they go anywhere.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{ApiError, ErrorKind};
use crate::piece::Broken;

/// Bytes of a provider's message that are passed on.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// Bytes of a provider's code that are passed on.
pub(crate) const CODE_BYTES_MAX: usize = 128;

/// Parses what a provider sent.
///
/// # Errors
/// It is not JSON, or not of this shape.
pub(crate) fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Broken> {
    serde_json::from_str(text).map_err(|error| Broken(format!("its JSON: {error}")))
}

/// Text that a provider sent.
///
/// # Errors
/// It is not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken("it is not UTF-8".into()))
}

/// What an HTTP status of a provider means, where its body says nothing better.
#[must_use]
pub(crate) fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthorized,
        402 => ErrorKind::Quota,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        405 => ErrorKind::Method,
        408 => ErrorKind::Timeout,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::Overloaded,
        503 | 529 => ErrorKind::Unavailable,
        504 => ErrorKind::Deadline,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    }
}

/// An error from an object with `message`, `code` or `type`, and `param`; or from a text.
#[must_use]
pub(crate) fn error_of(status: u16, error: Option<&Value>) -> ApiError {
    let text = |name: &str| error.and_then(|error| error.get(name)).and_then(Value::as_str);
    let message = text("message").or(error.and_then(Value::as_str)).unwrap_or_default();
    let message = words(message, MESSAGE_BYTES_MAX);
    let code = text("code").or(text("type")).map(|code| words(code, CODE_BYTES_MAX));
    ApiError {
        kind: kind_of(status),
        message: if message.is_empty() { format!("status {status}") } else { message },
        param: text("param").map(|param| words(param, CODE_BYTES_MAX)),
        code: code.filter(|code| !code.is_empty()).map(Cow::Owned),
    }
}

/// A stranger's words, shortened, without what a terminal or a log would obey.
#[must_use]
pub(crate) fn words(text: &str, most: usize) -> String {
    let text = &text[..text.floor_char_boundary(most)];
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}
