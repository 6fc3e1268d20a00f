//! Answers and refusals in SCIM's shape.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use govern::governor::EditError;
use govern::store::StoreError;
use serde_json::{Value, json};

use crate::api::Failure;

const TYPE: HeaderValue = HeaderValue::from_static("application/scim+json");

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    Found(Value),
    /// It lies where its `meta` says.
    Made(Value),
    Gone,
}

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    /// SCIM's word for it, of a 400 or 409.
    kind: Option<&'static str>,
    detail: String,
}

impl Problem {
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, kind: None, detail: detail.into() }
    }

    /// A 400 of a kind.
    pub(super) fn wrong(kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 400, kind: Some(kind), detail: detail.into() }
    }

    pub(super) fn value(detail: impl Into<String>) -> Self {
        Self::wrong("invalidValue", detail)
    }

    /// There is none, or it is another organisation's: the words are the same.
    pub(super) fn hidden() -> Self {
        Self::new(404, "There is no such resource.")
    }

    pub(super) fn taken(detail: impl Into<String>) -> Self {
        Self { status: 409, kind: Some("uniqueness"), detail: detail.into() }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken => Self::taken("Another one in the organisation has this name."),
            error => {
                tracing::error!(%error, "a SCIM request failed");
                Self::new(503, "The database cannot be reached; try again.")
            }
        }
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Store(error) => error.into(),
            EditError::Wrong(why) => {
                tracing::error!(why, "a SCIM request failed");
                Self::new(500, "The server failed.")
            }
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Found(value) => response(200, &value),
            Self::Made(value) => {
                let at = value["meta"]["location"].as_str().map(HeaderValue::from_str);
                let mut made = response(201, &value);
                if let Some(Ok(at)) = at {
                    made.headers_mut().insert(LOCATION, at);
                }
                made
            }
            Self::Gone => {
                let mut gone = Response::new(Body::empty());
                *gone.status_mut() = axum::http::StatusCode::NO_CONTENT;
                gone
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": self.status.to_string(),
            "detail": self.detail,
        });
        if let Some(kind) = self.kind {
            body["scimType"] = json!(kind);
        }
        response(self.status, &body)
    }
}

fn response(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, TYPE);
    response
}

/// What a layer outside refused, in SCIM's shape.
pub(crate) fn shaped(mut answer: Response) -> Response {
    let Some(failure) = answer.extensions_mut().remove::<Failure>() else { return answer };
    let problem = Problem::new(answer.status().as_u16(), failure.error.message);
    *answer.body_mut() = problem.into_response().into_body();
    // It was the other body's.
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer.headers_mut().insert(CONTENT_TYPE, TYPE);
    answer
}
