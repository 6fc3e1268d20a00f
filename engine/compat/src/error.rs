//! Failures in OpenAI's shape. The only file that names status codes for them.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What went wrong, and with which field of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: u16,
    code: &'static str,
    message: String,
    param: Option<String>,
}

impl Failure {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None }
    }

    /// The field at this path cannot be used as it is.
    pub(crate) fn invalid(param: impl Into<String>, why: &str) -> Self {
        let param = param.into();
        let message = format!("Invalid value for '{param}': {why}.");
        Self { param: Some(param), ..Self::new(400, "invalid_value", message) }
    }

    /// The field at this path is not honoured here, and so not taken.
    pub(crate) fn unsupported(param: impl Into<String>, why: &str) -> Self {
        let param = param.into();
        let message = format!("Unsupported parameter '{param}': {why}.");
        Self { param: Some(param), ..Self::new(400, "unsupported_parameter", message) }
    }

    /// The request as a whole is at fault.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "invalid_api_key", message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden", message)
    }

    pub(crate) fn no_model(name: &str, served: &str) -> Self {
        let short: String = name.chars().take(64).collect();
        let message = format!("The model '{short}' is not served here; '{served}' is.");
        Self { param: Some("model".to_owned()), ..Self::new(404, "model_not_found", message) }
    }

    pub(crate) fn no_route(path: &str) -> Self {
        Self::new(404, "not_found", format!("There is no route '{path}'."))
    }

    pub(crate) fn method() -> Self {
        Self::new(405, "method_not_allowed", "The route exists, with another method.")
    }

    pub(crate) fn slow_body() -> Self {
        Self::new(408, "request_timeout", "The body came too slowly.")
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "request_too_large", format!("The body is larger than {limit} bytes."))
    }

    pub(crate) fn overloaded() -> Self {
        Self::new(429, "overloaded", "The node is at its limit (--max-concurrent); try later.")
    }

    pub(crate) fn engine(message: &str) -> Self {
        Self::new(500, "engine_error", format!("The engine failed: {message}."))
    }

    pub(crate) fn unavailable(message: &str) -> Self {
        Self::new(503, "unavailable", message)
    }

    pub(crate) fn deadline() -> Self {
        Self::new(504, "deadline_exceeded", "The request took longer than this node allows.")
    }

    /// The path of an inner field, seen from the object around it.
    pub(crate) fn under(mut self, outer: &str) -> Self {
        if let Some(inner) = self.param.take() {
            let path = format!("{outer}.{inner}");
            self.message = self.message.replacen(&format!("'{inner}'"), &format!("'{path}'"), 1);
            self.param = Some(path);
        }
        self
    }

    /// `{"error":{...}}`.
    pub(crate) fn body(&self) -> Value {
        let kind = match self.status {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut answer =
            Response::builder().status(self.status).header(CONTENT_TYPE, "application/json");
        if matches!(self.status, 429 | 503) {
            answer = answer.header(RETRY_AFTER, "1");
        }
        let body = Body::from(self.body().to_string());
        answer.body(body).expect("the parts are fixed and valid")
    }
}
