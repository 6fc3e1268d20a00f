//! What goes around every answer: the request's id, the time taken, the key check, the bound on
//! requests at once, and the count in the metrics when the last byte has left (or the client).

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::header::ALLOW;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use govern::Principal;
use govern::policy::{Label, pattern};
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service;
use wire::responses::Outline;
use wire::{Dialect, ErrorKind};

use super::App;
use super::door::{self, Entered, Head};
use super::error::{self, Failure};
use super::generate::generate;
use super::ids;
use super::kept::Past;
use super::routes::wrong_method;
use super::said::Said;
use super::surface::Surface;
use crate::digest;
use crate::held;
use crate::metrics::Metrics;
use crate::route::Target;
use crate::scim;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// Longest id that a caller may choose: it is written into logs.
const ID_BYTES_MAX: usize = 128;

/// Who asks and since when.
#[derive(Clone)]
pub(super) struct Caller {
    /// When the head of the request was read.
    pub(super) arrived: Instant,
    /// The number of its fixed key, where it has one.
    pub(super) key: u64,
    /// The request's id, as its answer shows it.
    pub(super) request_id: Arc<str>,
    /// Whom the governor knows it as.
    pub(super) who: Option<Arc<Who>>,
    /// What is kept here that it goes on with, as far as it says so.
    pub(super) past: Option<Result<Arc<Past>, Failure>>,
    /// What a request of Responses says of what is kept; `None`: it cannot be read, or is none.
    pub(super) says: Option<Arc<Outline>>,
    /// Nobody waits for the answer.
    pub(super) background: bool,
    /// Nothing is asked: somebody only wants to know what would be.
    pub(super) wonders: bool,
    /// Which of its answers is kept, where one is: none, or the place of what keeps it.
    pub(super) claim: Arc<AtomicUsize>,
    /// The arm of an experiment that is asked for it now, by its pool.
    pub(super) arm: Arc<str>,
}

impl Caller {
    /// Somebody of whom nothing else is known.
    pub(super) fn new(key: u64, request_id: Arc<str>, arrived: Instant) -> Self {
        Self {
            arrived,
            key,
            request_id,
            who: None,
            past: None,
            says: None,
            background: false,
            wonders: false,
            claim: Arc::default(),
            arm: Arc::default(),
        }
    }

    /// Somebody whom the governor knows.
    pub(super) fn known(
        principal: Arc<Principal>,
        request_id: Arc<str>,
        source: Option<IpAddr>,
        arrived: Instant,
    ) -> Self {
        let source_text = source.map(|source| source.to_string().into()).unwrap_or_default();
        let said = Said::default();
        let who = Some(Arc::new(Who { said, source, source_text, principal }));
        Self { who, ..Self::new(0, request_id, arrived) }
    }

    /// The same, asking a target.
    pub(super) fn of_arm(self, target: &Target) -> Self {
        Self { arm: target.arm.clone().unwrap_or_default(), ..self }
    }

    /// Whom the scheduler shares time between: the number of the key, or of the project.
    pub(super) fn tenant(&self) -> u64 {
        self.who.as_ref().map_or(self.key, |who| {
            let project = who.principal.project.as_ref();
            who.number(project.map_or("", |project| project.id.as_str()))
        })
    }

    /// Whose cached pages it may share: a number of the team; 0: everybody's. A team's pages are
    /// its own: how fast another's prompt is answered must tell nothing.
    pub(super) fn pages(&self) -> u64 {
        self.who.as_ref().map_or(0, |who| {
            let team = who.principal.team.as_ref();
            who.number(team.map_or("", |team| team.id.as_str()))
        })
    }

    /// How secret is what it goes on with, where that says more than the usual.
    pub(super) fn past_label(&self) -> Option<Label> {
        let label = self.past.as_ref()?.as_ref().ok()?.label;
        label.filter(|label| *label >= Label::default())
    }

    /// Tokens of what it goes on with, about.
    pub(super) fn past_estimate(&self) -> u64 {
        let past = self.past.as_ref().and_then(|past| past.as_ref().ok());
        past.map_or(0, |past| past.estimate())
    }

    /// Whether the policies above it let it ask this model.
    pub(super) fn sees(&self, model: &str) -> bool {
        let Some(who) = &self.who else { return true };
        who.principal.layers().iter().all(|layer| {
            let models = layer.policy.models.as_ref();
            models.is_none_or(|all| all.iter().any(|wanted| pattern::matches(wanted, model)))
        })
    }

    /// Whether the policies above it let it ask this provider.
    pub(super) fn may_ask_of(&self, provider: &str) -> bool {
        let Some(who) = &self.who else { return true };
        let fits = |list: &Vec<String>| list.iter().any(|one| pattern::matches(one, provider));
        who.principal.providers().iter().all(fits)
    }
}

/// Somebody whom the governor knows.
pub(super) struct Who {
    pub(super) principal: Arc<Principal>,
    /// What is said, where it has to be recorded.
    pub(super) said: Said,
    source: Option<IpAddr>,
    /// The same, for the books.
    source_text: Arc<str>,
}

impl Who {
    /// Where the request comes from.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.source
    }

    /// Of a part of its organisation.
    fn number(&self, part: &str) -> u64 {
        let organisation = self.principal.organisation.id.as_str();
        digest::number(&[organisation.as_bytes(), b"/", part.as_bytes()])
    }

    /// As [`Who::peer`], for the books.
    pub(super) fn source(&self) -> Arc<str> {
        Arc::clone(&self.source_text)
    }
}

/// All routes in their envelope. Those that models answer to are asked for by far the most, and
/// are found without a router: its layers cost as much as all else that a request passes here.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) app: Arc<App>,
    pub(super) routes: Router,
}

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.clone().answer(request).map(Ok))
    }
}

/// The route of a model, where all of that stands in the path.
pub(super) fn surface(path: &str) -> Option<Surface> {
    Some(match path {
        "/v1/chat/completions" => Surface::Chat,
        "/v1/completions" => Surface::Completion,
        "/v1/messages" => Surface::Messages,
        "/v1/responses" => Surface::Responses,
        _ => return None,
    })
}

impl Front {
    pub(super) async fn answer(self, mut request: Request) -> Response {
        let Self { app, mut routes } = self;
        let arrived = Instant::now();
        let id = request_id(request.headers());
        let route = route(request.uri().path());
        let dialect = dialect(request.uri().path(), request.headers());
        let scim = request.uri().path().starts_with("/scim/");
        let mut permit = None;
        let answer = match enter(&app, &Head::of(&request)).await {
            Ok((entered, place)) => {
                permit = place;
                let who = caller(&mut request, entered, arrived, &id);
                let answer = match surface(request.uri().path()) {
                    None => routes.call(request).await.unwrap_or_else(|never| match never {}),
                    Some(surface) if *request.method() == Method::POST => {
                        let answer = generate(Arc::clone(&app), request, surface).await;
                        answer.unwrap_or_else(IntoResponse::into_response)
                    }
                    Some(_) => {
                        let mut answer = wrong_method(request).await.into_response();
                        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                        answer
                    }
                };
                match who {
                    Some(who) => answer.map(|body| who.said.answered(body)),
                    None => answer,
                }
            }
            Err(failure) => failure.into_response(),
        };
        let answer = match dialect {
            Some(dialect) => error::in_dialect(answer, dialect, &id),
            None if scim => scim::shaped(answer),
            None => answer,
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
}

/// Notes who asks; whom the governor knows it as.
fn caller(
    request: &mut Request,
    entered: Entered,
    arrived: Instant,
    id: &HeaderValue,
) -> Option<Arc<Who>> {
    let request_id = id.to_str().unwrap_or_default();
    let caller = match entered {
        Entered::Key(key) => Caller::new(key, request_id.into(), arrived),
        Entered::Known(principal) => {
            request.extensions_mut().insert(Arc::clone(&principal));
            Caller::known(principal, request_id.into(), door::peer(request), arrived)
        }
    };
    let who = caller.who.clone();
    request.extensions_mut().insert(caller);
    who
}

/// Key and place. Probes need neither: an orchestrator has no key, and a full server is alive.
async fn enter(
    app: &App,
    head: &Head<'_>,
) -> Result<(Entered, Option<OwnedSemaphorePermit>), Failure> {
    if matches!(head.path, "/health" | "/ready") || signs_in(app, head.path) {
        return Ok((Entered::Key(0), None));
    }
    let entered = app.door.enter(head).await?;
    let place = Arc::clone(&app.places).try_acquire_owned().map_err(|_| {
        let message = "The server is at its limit of requests at once; try again later.";
        Failure::new(ErrorKind::Overloaded, "overloaded", message)
    })?;
    Ok((entered, Some(place)))
}

/// Whoever signs in has nothing to show yet.
fn signs_in(app: &App, path: &str) -> bool {
    app.door.signin().is_some()
        && (path == "/signin" || path.starts_with("/signin/") || path == "/signout")
}

/// The dialect of a path's errors, where that is not OpenAI's.
fn dialect(path: &str, headers: &HeaderMap) -> Option<Dialect> {
    if path.starts_with("/v1/messages") || headers.contains_key("anthropic-version") {
        return Some(Dialect::Messages);
    }
    if path == "/v2/rerank" {
        return Some(Dialect::Cohere);
    }
    let google =
        path.starts_with("/v1beta/") || path.starts_with("/v1/models/") && path.contains(':');
    google.then_some(Dialect::Gemini)
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
    const ROUTES: [&str; 23] = [
        "/v1/route/explain",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/v1/responses/input_tokens",
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
        "/v1/usage",
    ];
    match ROUTES.into_iter().find(|route| *route == path) {
        Some(route) => route,
        None if path == "/" => "/",
        None if path.starts_with("/admin/v1") => "/admin/v1",
        None if path.starts_with("/scim/v2") => "/scim/v2",
        None if path.starts_with("/signin") || path == "/signout" => "/signin",
        None if path.starts_with("/v1/models/") => "/v1/models/{id}",
        None if path.starts_with("/v1/responses/") => "/v1/responses/{id}",
        None if path.starts_with("/v1/conversations") => "/v1/conversations",
        None if path.starts_with("/v1beta/models") => "/v1beta/models",
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
