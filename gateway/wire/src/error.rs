//! What can be wrong with a request, before any dialect's shape and any HTTP status. The gateway
//! maps [`ErrorKind`] to a status in one place; a dialect writes the body.

use std::borrow::Cow;
use std::fmt;

/// The classes of failure that a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is at fault: change it before trying again.
    Invalid,
    /// No key, or a wrong one.
    Unauthorized,
    /// Not from where the request comes.
    Forbidden,
    /// No such model or route.
    NotFound,
    /// The route exists, with another method.
    Method,
    /// The body is larger than the server reads.
    TooLarge,
    /// The body came too slowly.
    Timeout,
    /// The server is at its limit: the same request may succeed later.
    Overloaded,
    /// The money for it is spent.
    Quota,
    /// The model is not there now (loading, draining, gone).
    Unavailable,
    /// The request took longer than the server allows.
    Deadline,
    /// Whoever was to answer in this server's place failed.
    Upstream,
    /// The server failed.
    Internal,
}

/// A failure in words, with the field and the code that programs decide on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ApiError {
    /// Its class.
    pub kind: ErrorKind,
    /// One or two sentences for a person.
    pub message: String,
    /// Path of the field at fault (`messages[2].content[0].type`).
    pub param: Option<String>,
    /// Stable name of the failure.
    pub code: Option<Cow<'static, str>>,
}

impl ApiError {
    /// A failure without a field.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, code: Some(Cow::Borrowed(code)) }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
