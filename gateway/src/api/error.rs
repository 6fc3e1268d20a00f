//! Failures as HTTP. The only file that names status codes for them, so that one kind of failure
//! has one status everywhere.

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use govern::{Class, Denied};
use scheduler::types::Refusal;
use wire::{ApiError, Dialect, ErrorKind, cohere, gemini, messages, openai};

use crate::backend::SubmitError;
use crate::backend::local::EngineState;

/// A failure and when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong, in words.
    pub error: ApiError,
    /// For `Retry-After`.
    pub retry_after_s: Option<u64>,
}

impl Failure {
    /// A failure without a field.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(kind, code, message).into()
    }

    /// It is the fault of whoever computes answers here.
    pub(super) fn is_of_engine(&self) -> bool {
        matches!(self.error.kind, ErrorKind::Internal | ErrorKind::Unavailable)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        // Whoever is told "later" is told when: a second is what an engine needs for some steps.
        let later = matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable);
        Self { error, retry_after_s: later.then_some(1) }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Overloaded { retry_after_s } => Self {
                error: ApiError::new(ErrorKind::Overloaded, "overloaded", message),
                retry_after_s: Some(retry_after_s),
            },
            SubmitError::Unavailable(_) => unavailable(message),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let kind = match denied.rule.class() {
            Class::Unauthorized => ErrorKind::Unauthorized,
            Class::Forbidden => ErrorKind::Forbidden,
            Class::Limited => ErrorKind::Overloaded,
            Class::Broke => ErrorKind::Quota,
            Class::Unavailable => ErrorKind::Unavailable,
        };
        let error = ApiError::new(kind, denied.rule.name(), denied.message);
        Self { error, retry_after_s: denied.retry_after_s }
    }
}

fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Unavailable, "unavailable", message)
}

/// What the scheduler refused, in the caller's words; with the state of the model's engine.
pub(super) fn of_refusal(
    refusal: Refusal,
    model: &str,
    state: &EngineState,
    retry_after_s: u64,
) -> Failure {
    match refusal {
        Refusal::Invalid(field, why) => {
            let message = format!("Invalid value for '{field}': {why}.");
            ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(field).into()
        }
        Refusal::TooLong { needed, limit } => too_long(needed, limit),
        Refusal::Overloaded => Failure {
            error: ApiError::new(
                ErrorKind::Overloaded,
                "overloaded",
                "The server is at its limit; try again later.",
            ),
            retry_after_s: Some(retry_after_s),
        },
        Refusal::Deadline => Failure::new(
            ErrorKind::Deadline,
            "deadline_exceeded",
            "The request took longer than this server allows.",
        ),
        Refusal::Engine(why) => match state {
            EngineState::Ready => {
                tracing::error!(%model, %why, "a request failed in the engine");
                let message = format!("The engine failed: {why}.");
                Failure::new(ErrorKind::Internal, "engine_error", message)
            }
            EngineState::Draining | EngineState::Stopped(_) => unavailable(why),
        },
    }
}

/// A prompt that leaves no room for an answer.
pub(super) fn too_long(needed: usize, limit: usize) -> Failure {
    let message = format!(
        "This model's context is {limit} tokens. The prompt and at least one new token make \
         {needed}. Shorten the prompt."
    );
    let error = ApiError::new(ErrorKind::Invalid, "context_length_exceeded", message);
    error.with_param("messages").into()
}

/// It says that a prompt is too long.
pub(super) fn is_too_long(failure: &Failure) -> bool {
    failure.error.code.as_deref() == Some("context_length_exceeded")
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Method => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Timeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Overloaded | ErrorKind::Quota => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A failure's answer in another dialect's shape.
pub(super) fn in_dialect(
    mut answer: Response,
    dialect: Dialect,
    request_id: &HeaderValue,
) -> Response {
    let Some(failure) = answer.extensions_mut().remove::<Failure>() else { return answer };
    let id = request_id.to_str().unwrap_or_default();
    let body = match dialect {
        Dialect::Messages => {
            answer.headers_mut().insert("request-id", request_id.clone());
            messages::error(&failure.error, id)
        }
        Dialect::Cohere => cohere::error(&failure.error, id),
        _ => gemini::error(&failure.error),
    };
    // It was the other body's.
    answer.headers_mut().remove(CONTENT_LENGTH);
    *answer.body_mut() = body.into();
    answer
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = openai::answer::error(&self.error);
        let kept = self.clone();
        let mut response = (status(self.error.kind), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.error.kind == ErrorKind::Quota {
            // OpenAI's clients try a 429 again by themselves; money does not come back that fast.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(kept);
        response
    }
}
