//! What an admin request is answered with.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;

use super::refusal::Refusal;

pub(super) const JSON: &str = "application/json";

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) content: Content,
    /// It holds a secret: it may be sent, and kept nowhere.
    pub(super) secret: bool,
}

pub(super) enum Content {
    Whole(String),
    Pieces(Body),
}

impl Answer {
    /// 200 with JSON.
    pub(super) fn json(value: &impl Serialize) -> Self {
        let text = serde_json::to_string(value).expect("answers are plain data");
        Self::text(JSON, text)
    }

    /// 200 with some text.
    pub(super) fn text(kind: &'static str, text: String) -> Self {
        Self { status: 200, kind, content: Content::Whole(text), secret: false }
    }

    /// 200 with a text that is made while it is sent.
    pub(super) fn stream(
        kind: &'static str,
        pieces: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ) -> Self {
        let content = Content::Pieces(Body::from_stream(pieces));
        Self { status: 200, kind, content, secret: false }
    }

    /// 201: something was made.
    pub(super) fn made(value: &impl Serialize) -> Self {
        Self { status: 201, ..Self::json(value) }
    }

    /// The same, never to be kept.
    pub(super) fn with_secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let body = match self.content {
            Content::Whole(text) => Body::from(text),
            Content::Pieces(body) => body,
        };
        let mut response = with_status(body.into_response(), self.status);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        // Nobody between here and the caller keeps what another one asked.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The same answer under another status.
pub(super) fn with_status(mut response: Response, status: u16) -> Response {
    if let Ok(status) = status.try_into() {
        *response.status_mut() = status;
    }
    response
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    object: &'static str,
    data: Vec<serde_json::Value>,
    has_more: bool,
    /// What to send as `after` for the next page.
    last_id: Option<String>,
}

impl Page {
    /// The page, and where the next one begins, if there is one.
    pub(super) fn new(data: Vec<serde_json::Value>, next: Option<String>) -> Self {
        Self { object: "list", data, has_more: next.is_some(), last_id: next }
    }

    pub(super) fn value(&self) -> Result<serde_json::Value, Refusal> {
        serde_json::to_value(self).map_err(Refusal::internal)
    }
}
