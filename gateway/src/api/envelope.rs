//! What goes around every answer: the request's id, the time taken, the key check, the bound on
//! requests at once, and the count in the metrics when the last byte has left (or the client).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;
use wire::ErrorKind;

use super::App;
use super::error::Failure;
use super::ids;
use crate::held;
use crate::metrics::Metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// Longest id that a caller may choose: it is written into logs.
const ID_BYTES_MAX: usize = 128;

/// Who asks and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// When the head of the request was read.
    pub(super) arrived: Instant,
    /// Whom the scheduler shares time between: the number of the key.
    pub(super) tenant: u64,
}

/// The outermost layer.
pub(super) async fn layer(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let arrived = Instant::now();
    let id = request_id(request.headers());
    let route = route(request.uri().path());
    let mut permit = None;
    let answer = match enter(&app, &request) {
        Ok((tenant, place)) => {
            permit = place;
            request.extensions_mut().insert(Caller { arrived, tenant });
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    };
    let code = answer.status().as_u16();
    tracing::debug!(id = id.to_str().unwrap_or(""), route, code, "answered");
    let (mut parts, body) = answer.into_parts();
    parts.headers.insert(REQUEST_ID, id);
    let ms = u64::try_from(arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
    parts.headers.insert(PROCESSING_MS, HeaderValue::from(ms));
    let metrics = Arc::clone(&app.metrics);
    let record = Record { metrics, route, code, arrived, _permit: permit };
    Response::from_parts(parts, held::hold(body, record))
}

/// Key and place. Probes need neither: an orchestrator has no key, and a full server is alive.
fn enter(app: &App, request: &Request) -> Result<(u64, Option<OwnedSemaphorePermit>), Failure> {
    if matches!(request.uri().path(), "/health" | "/ready") {
        return Ok((0, None));
    }
    let tenant = app.keys.check(request.headers())?;
    let place = Arc::clone(&app.places).try_acquire_owned().map_err(|_| {
        let message = "The server is at its limit of requests at once; try again later.";
        Failure::new(ErrorKind::Overloaded, "overloaded", message)
    })?;
    Ok((tenant, Some(place)))
}

/// The caller's own id if it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(b);
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
    });
    let made = || HeaderValue::from_str(&ids::named("req_"));
    given.cloned().or_else(|| made().ok()).unwrap_or(HeaderValue::from_static("req_0"))
}

/// The pattern of a path, for labels: a stranger's path must not make a new one.
fn route(path: &str) -> &'static str {
    const ROUTES: [&str; 17] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/v1/score",
        "/v1/models",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/tokenize",
        "/v1/detokenize",
        "/tokenize",
        "/detokenize",
        "/health",
        "/ready",
        "/metrics",
    ];
    match ROUTES.into_iter().find(|route| *route == path) {
        Some(route) => route,
        None if path == "/" => "/",
        None if path.starts_with("/v1/models/") => "/v1/models/{id}",
        None => "other",
    }
}

/// Counts the answer when it is dropped: sent, or given up by the client.
struct Record {
    metrics: Arc<Metrics>,
    route: &'static str,
    code: u16,
    arrived: Instant,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let took: Duration = self.arrived.elapsed();
        self.metrics.http_request(self.route, self.code, took);
    }
}
