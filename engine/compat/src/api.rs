//! The routes, and an answer in OpenAI's shape, whole or as server-sent events. Knows requests
//! and pieces of text; the engine behind them is `model`'s business.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use image::DynamicImage;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::error::Failure;
use crate::model::{Answer, Node, Piece};
use crate::parts;
use crate::request::{self, Ask};

/// Some images as base64, and their words.
const BODY_MAX: usize = 32 << 20;
/// For the whole body: a slow sender holds one of few places.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// What all requests share.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) key: Option<String>,
    /// Empty until the model is loaded.
    pub(crate) node: OnceLock<Node>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) draining: AtomicBool,
    pub(crate) time_max: Duration,
    /// Unix seconds of the start.
    pub(crate) created: u64,
    pub(crate) answers: AtomicU64,
}

pub(crate) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .route("/ready", get(ready))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .fallback(async |uri: Uri| Failure::no_route(uri.path()))
        .method_not_allowed_fallback(async || Failure::method())
        .with_state(site)
}

async fn ready(State(site): State<Arc<Site>>) -> Result<Json<Value>, Failure> {
    site.node().map(|_| Json(json!({"status": "ready"})))
}

async fn models(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Json<Value>, Failure> {
    site.admit(&headers)?;
    let node = site.node()?;
    let model = json!({
        "id": site.name, "object": "model", "created": site.created, "owned_by": "hearth-compat",
        "max_model_len": node.context,
    });
    Ok(Json(json!({"object": "list", "data": [model]})))
}

async fn chat(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let deadline = Instant::now() + site.time_max;
    site.admit(&headers)?;
    let node = site.node()?;
    let place = site.places.clone().try_acquire_owned().map_err(|_| Failure::overloaded())?;
    let until = deadline.min(Instant::now() + BODY_TIME_MAX);
    let body =
        timeout_at(until, read(&headers, body)).await.map_err(|_| Failure::slow_body())??;
    let (ask, images) = unpack(body, site.name.clone()).await?;
    let mut answer = Timed { answer: node.start(&ask, images).await?, deadline, _place: place };
    let number = site.answers.fetch_add(1, Ordering::Relaxed);
    let head = Head {
        id: format!("chatcmpl-{:x}-{number}", site.created),
        model: site.name.clone(),
        created: unix_seconds(),
    };
    if !ask.stream {
        return whole(head, answer).await;
    }
    // What is wrong with a prompt shows with the first piece, while a status can still say so.
    let first = answer.next().await?;
    let mut writer =
        Writer { head, answer, usage: ask.stream_usage, out: VecDeque::new(), ended: false };
    let role = json!({"role": "assistant", "content": ""});
    writer.out.push_back(writer.head.chunk(&role, None));
    writer.put(Ok(first));
    Ok(Sse::new(writer.events()).keep_alive(KeepAlive::default()).into_response())
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Failure> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > BODY_MAX) {
        return Err(Failure::too_large(BODY_MAX));
    }
    let mut out = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Failure::request("The body broke off."))?;
        if out.len() + piece.len() > BODY_MAX {
            return Err(Failure::too_large(BODY_MAX));
        }
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

/// Megabytes of base64 and pixels: on a thread that may take its time.
async fn unpack(body: Vec<u8>, name: String) -> Result<(Ask, Vec<DynamicImage>), Failure> {
    let work = move || {
        let ask = request::parse(&body, &name)?;
        let images = parts::decode(&ask.images)?;
        Ok((ask, images))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::request("An image cannot be decoded.")))
}

impl Site {
    fn node(&self) -> Result<&Node, Failure> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Failure::unavailable("The node is shutting down."));
        }
        self.node.get().ok_or_else(|| Failure::unavailable("The model is still loading."))
    }

    /// Whoever shows the key may in. Without a key the node is on loopback, which a web page in a
    /// browser on this machine can reach too: then only requests to and from this machine's own
    /// names are.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(key) = &self.key else {
            let local = [HOST, ORIGIN]
                .iter()
                .filter_map(|name| headers.get(name))
                .all(|value| is_this_machine(value.to_str().unwrap_or_default()));
            let why = "Without an API key this node answers to this machine's own names only.";
            return if local { Ok(()) } else { Err(Failure::forbidden(why)) };
        };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        // All bytes are compared, so that no time tells how much of a guess was right.
        let difference = key.bytes().zip(shown.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        if key.len() == shown.len() && std::hint::black_box(difference) == 0 {
            return Ok(());
        }
        Err(Failure::unauthorized("Send 'Authorization: Bearer KEY' with this node's key."))
    }
}

fn is_this_machine(value: &str) -> bool {
    let authority = value.split_once("://").map_or(value, |(_, rest)| rest);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(crate) fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// An answer with its end in time and its place among the running ones.
struct Timed {
    answer: Answer,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

impl Timed {
    async fn next(&mut self) -> Result<Piece, Failure> {
        let next = timeout_at(self.deadline, self.answer.next()).await;
        next.unwrap_or_else(|_| Err(Failure::deadline()))
    }
}

async fn whole(head: Head, mut answer: Timed) -> Result<Response, Failure> {
    let (mut text, mut thought) = (String::new(), String::new());
    loop {
        match answer.next().await? {
            Piece::Text { content, reasoning } => {
                text += &content;
                thought += &reasoning;
            }
            Piece::End { finish, prompt, completion } => {
                let mut message = json!({"role": "assistant", "content": text});
                if !thought.is_empty() {
                    message["reasoning_content"] = thought.into();
                }
                return Ok(Json(json!({
                    "id": head.id, "object": "chat.completion", "created": head.created,
                    "model": head.model,
                    "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                    "usage": usage(prompt, completion),
                }))
                .into_response());
            }
        }
    }
}

fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

/// What every chunk of an answer repeats.
struct Head {
    id: String,
    model: String,
    created: u64,
}

impl Head {
    fn chunk(&self, delta: &Value, finish: Option<&str>) -> String {
        self.with(&json!([{"index": 0, "delta": delta, "finish_reason": finish}]), &Value::Null)
    }

    fn with(&self, choices: &Value, usage: &Value) -> String {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices,
        });
        if !usage.is_null() {
            chunk["usage"] = usage.clone();
        }
        chunk.to_string()
    }
}

/// Pieces in, events out. Dropped with the connection, and the answer with it.
struct Writer {
    head: Head,
    answer: Timed,
    usage: bool,
    out: VecDeque<String>,
    ended: bool,
}

impl Writer {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut writer| {
            while writer.out.is_empty() {
                if writer.ended {
                    return None;
                }
                let piece = writer.answer.next().await;
                writer.put(piece);
            }
            let event = Event::default().data(writer.out.pop_front().unwrap_or_default());
            Some((Ok(event), writer))
        })
    }

    fn put(&mut self, piece: Result<Piece, Failure>) {
        match piece {
            Ok(Piece::Text { content, reasoning }) => {
                let mut delta = json!({});
                for (name, text) in [("content", content), ("reasoning_content", reasoning)] {
                    if !text.is_empty() {
                        delta[name] = text.into();
                    }
                }
                if delta.as_object().is_some_and(|fields| !fields.is_empty()) {
                    self.out.push_back(self.head.chunk(&delta, None));
                }
            }
            Ok(Piece::End { finish, prompt, completion }) => {
                self.ended = true;
                self.out.push_back(self.head.chunk(&json!({}), Some(finish)));
                if self.usage {
                    self.out.push_back(self.head.with(&json!([]), &usage(prompt, completion)));
                }
                self.out.push_back("[DONE]".to_owned());
            }
            // A status was sent long ago: the event says it, and no [DONE] follows.
            Err(failure) => {
                self.ended = true;
                self.out.push_back(failure.body().to_string());
            }
        }
    }
}
