//! Tokens for a gateway: its request comes as the body's first line, its later words as further
//! ones; what the engine makes goes back as it comes. A gateway that goes away has cancelled.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use scheduler::types::Event;
use text::grammar::Grammar;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Node, said};
use crate::backend::adapters::LoadedAdapter;
use crate::backend::local::{LocalEngine, LocalGeneration};
use crate::backend::meter::{End, Meter};
use crate::backend::{Along, Model, SubmitError};
use crate::cluster::lines::Lines;
use crate::cluster::protocol::{self, ASK_BYTES_MAX, Ask, SAY_BYTES_MAX, Say};

/// Longest wait for a request's first line.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// Events that go out in one write.
const EVENTS_PER_WRITE: usize = 256;
/// Writes on their way.
const WRITES: usize = 4;

/// A request in the engine's hands.
struct Begun {
    generation: LocalGeneration,
    /// It stays on the device until the request has ended, whoever unloads it.
    _adapter: Option<Arc<LoadedAdapter>>,
}

/// `POST /cluster/v1/generate`
pub(super) async fn generate(State(node): State<Arc<Node>>, request: Request) -> Response {
    let arrived = Instant::now();
    let mut lines = Lines::new(request.into_body(), ASK_BYTES_MAX);
    let line = match first_line(&mut lines).await {
        Ok(line) => line,
        Err(refused) => return refused,
    };
    lines.most = SAY_BYTES_MAX;
    match begin(&node, &line, arrived).await {
        Ok((begun, allowed)) => answer(begun, lines, allowed),
        Err(refused) => refused,
    }
}

/// A request's first line.
pub(super) async fn first_line(lines: &mut Lines<Body>) -> Result<Bytes, Response> {
    match timeout(FIRST_LINE, lines.next()).await {
        Ok(Ok(Some(line))) => Ok(line),
        Ok(Ok(None)) => Err(said(StatusCode::BAD_REQUEST, "there is no request")),
        Ok(Err(broken)) => Err(said(StatusCode::BAD_REQUEST, &broken.to_string())),
        Err(_) => Err(said(StatusCode::REQUEST_TIMEOUT, "the request did not come")),
    }
}

/// What a gateway is told whose request the engine does not take.
pub(super) fn not_taken(error: &SubmitError) -> Response {
    match error {
        SubmitError::Overloaded { retry_after_s } => {
            let mut full = said(StatusCode::TOO_MANY_REQUESTS, "the node has no room");
            full.headers_mut().insert(RETRY_AFTER, (*retry_after_s).into());
            full
        }
        SubmitError::Unavailable(_) => said(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// Hands the request to the engine.
async fn begin(
    node: &Node,
    line: &[u8],
    arrived: Instant,
) -> Result<(Begun, Arc<AtomicU32>), Response> {
    let bad = |why: &str| said(StatusCode::BAD_REQUEST, why);
    let ask: Ask = serde_json::from_slice(line).map_err(|error| bad(&error.to_string()))?;
    let found = node.find(&ask.model);
    let (model, fingerprint) =
        found.ok_or_else(|| said(StatusCode::NOT_FOUND, "no such model here"))?;
    if fingerprint != ask.fingerprint {
        return Err(said(StatusCode::CONFLICT, "the model is another one here"));
    }
    let known = u32::try_from(model.text.vocab_size()).unwrap_or(u32::MAX);
    let ids = ask.prompt.iter().chain(ask.made.iter().flat_map(|(tokens, _)| tokens));
    if ids.clone().any(|id| *id >= known) {
        return Err(bad("a token is none of the vocabulary"));
    }
    let engine = model.engine.local();
    let engine = engine.ok_or_else(|| said(StatusCode::NOT_FOUND, "it is not made here"))?;
    let grammar = grammar(&model, &ask).await?;
    let allowed = Arc::new(AtomicU32::new(ask.allowance));
    let meter = Box::new(Allowed { now: Arc::clone(&allowed), told: ask.allowance });
    let mut request = request(engine, &ask);
    if let Some(adapter) = &model.adapter {
        request.adapter = adapter.number();
        request.salt = protocol::salt(request.salt, Some(&fingerprint));
    }
    let along = Along { grammar, meter: Some(meter), arrived, hedge: None };
    let generation = engine.submit_with(request, along).map_err(|error| not_taken(&error))?;
    Ok((Begun { generation, _adapter: model.adapter.clone() }, allowed))
}

/// The scheduler's request, with its deadline on this machine's clock.
fn request(engine: &LocalEngine, ask: &Ask) -> scheduler::types::Request {
    let mut request = ask.request();
    let deadline = |ms: u64| engine.now().saturating_add(ms.saturating_mul(1000));
    request.deadline = ask.deadline_ms.map(deadline);
    request
}

/// What its choices are held to, compiled here of the same plan.
async fn grammar(model: &Arc<Model>, ask: &Ask) -> Result<Option<Arc<Grammar>>, Response> {
    let Some(plan) = ask.grammar.clone() else { return Ok(None) };
    let model = Arc::clone(model);
    let compiled = tokio::task::spawn_blocking(move || {
        let grammars = model.answering.grammars()?;
        if let Some(grammar) = grammars.kept(&plan) {
            model.engine.metrics().grammar_kept();
            return Ok(grammar);
        }
        let start = Instant::now();
        let compiled = grammars.compile(&plan);
        model.engine.metrics().grammar_compiled(start.elapsed(), compiled.is_err());
        compiled
    });
    match compiled.await {
        Ok(Ok(grammar)) => Ok(Some(grammar)),
        Ok(Err(error)) => Err(said(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(_) => Err(said(StatusCode::INTERNAL_SERVER_ERROR, "the grammar was not compiled")),
    }
}

/// The events as a body, while the gateway's words are heard.
fn answer(begun: Begun, lines: Lines<Body>, allowed: Arc<AtomicU32>) -> Response {
    let (writes, reader) = mpsc::channel(WRITES);
    tokio::spawn(serve(begun, lines, allowed, writes));
    let body = stream::unfold(reader, |mut reader| async move {
        reader.recv().await.map(|bytes: Bytes| (Ok::<_, Infallible>(bytes), reader))
    });
    Body::from_stream(body).into_response()
}

/// Runs a request to its end, or until the gateway has gone: then it is dropped, and so cancelled.
async fn serve(
    mut begun: Begun,
    mut lines: Lines<Body>,
    allowed: Arc<AtomicU32>,
    writes: mpsc::Sender<Bytes>,
) {
    let mut hears = true;
    loop {
        let first = tokio::select! {
            event = begun.generation.next() => event,
            line = lines.next(), if hears => {
                match line {
                    Ok(Some(line)) => match serde_json::from_slice(&line) {
                        Ok(say) => heed(&begun.generation, &allowed, say),
                        Err(error) => {
                            tracing::warn!(%error, "a gateway says what makes no sense");
                            return;
                        }
                    },
                    // It has nothing more to say, and still reads.
                    Ok(None) => hears = false,
                    Err(_) => return,
                }
                continue;
            }
            () = writes.closed() => return,
        };
        let Some(first) = first else { return };
        let mut events = vec![first];
        while events.len() < EVENTS_PER_WRITE {
            let Some(event) = begun.generation.try_next() else { break };
            events.push(event);
        }
        let over = events.last().is_some_and(|e| matches!(e, Event::End(..) | Event::Refused(..)));
        let mut line = Vec::new();
        protocol::write(&events, &mut line);
        if writes.send(line.into()).await.is_err() || over {
            return;
        }
    }
}

/// Does what a gateway says.
fn heed(generation: &LocalGeneration, allowed: &AtomicU32, say: Say) {
    match say {
        Say::Allow(tokens) => {
            allowed.fetch_max(tokens, Ordering::SeqCst);
        }
        Say::Cancel(choice) => generation.cancel_choice(choice),
        Say::Stop => generation.cancel(),
    }
}

/// What the gateway says is paid for.
struct Allowed {
    now: Arc<AtomicU32>,
    /// What the scheduler knows.
    told: u32,
}

impl Meter for Allowed {
    fn allowance(&self) -> u32 {
        self.told
    }

    fn made(&mut self, _: u32) -> Option<u32> {
        let now = self.now.load(Ordering::SeqCst);
        let more = now > self.told;
        self.told = now;
        more.then_some(now)
    }

    fn ended(&mut self, _: &End) {}
}
