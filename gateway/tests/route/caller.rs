//! Callers of all dialects, and gateways to ask.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use gateway::api::{App, Keys, Limits, router};
use gateway::config::routing::Routing;
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::route::Routes;
use hearth_tests::http::is_as_long_as_it_says;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

/// A dialect that callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    Chat,
    Messages,
    Responses,
    Gemini,
    Completions,
}

impl Inbound {
    /// Those that every provider of chats can answer.
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Messages, Self::Responses, Self::Gemini, Self::Completions];

    /// Path and body of a request.
    pub(crate) fn request(self, model: &str, stream: bool, text: &str) -> (String, Value) {
        let turns = json!([{ "role": "user", "content": text }]);
        match self {
            Self::Chat => (
                "/v1/chat/completions".to_owned(),
                json!({ "model": model, "stream": stream, "messages": turns }),
            ),
            Self::Messages => (
                "/v1/messages".to_owned(),
                json!({ "model": model, "stream": stream, "messages": turns, "max_tokens": 64 }),
            ),
            Self::Responses => (
                "/v1/responses".to_owned(),
                json!({ "model": model, "stream": stream, "input": text, "store": false }),
            ),
            Self::Completions => (
                "/v1/completions".to_owned(),
                json!({ "model": model, "stream": stream, "prompt": text }),
            ),
            Self::Gemini => {
                let how = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
                let turns = json!([{ "role": "user", "parts": [{ "text": text }] }]);
                (format!("/v1beta/models/{model}:{how}"), json!({ "contents": turns }))
            }
        }
    }

    /// What only a stream has that came to its natural end.
    pub(crate) fn ends(self, body: &str) -> bool {
        let marks: &[&str] = match self {
            Self::Chat | Self::Completions => &["[DONE]", "\"finish_reason\":\""],
            Self::Messages => &["message_stop", "\"stop_reason\":\""],
            Self::Responses => &["response.completed", "response.incomplete"],
            Self::Gemini => &["finishReason"],
        };
        marks.iter().any(|mark| body.contains(mark))
    }

    /// What tells the caller that a stream broke.
    pub(crate) fn breaks(self, body: &str) -> bool {
        match self {
            Self::Chat | Self::Completions | Self::Gemini => body.contains("data: {\"error\":"),
            Self::Messages => body.contains("event: error\n"),
            Self::Responses => {
                body.contains("event: error\n") || body.contains("event: response.failed\n")
            }
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Who answered, and why: `x-hearth-route`.
    pub(crate) fn route(&self) -> &str {
        self.header("x-hearth-route")
    }
}

/// Routes of a configuration, beside models of this process.
pub(crate) fn routes(config: &str, local: &[&str]) -> Result<Routes, String> {
    let routing: Routing = toml::from_str(config).unwrap_or_else(|e| panic!("{e}\n{config}"));
    let local: Vec<String> = local.iter().map(|name| (*name).to_owned()).collect();
    Routes::new(&routing, &local)
}

/// A gateway without a model of its own.
pub(crate) fn gateway(config: &str) -> Router {
    let models = Models::new();
    models.set_loaded();
    let routes = routes(config, &[]).expect("a configuration");
    let none: [&str; 0] = [];
    let keys = Keys::new(none);
    router(App::routed(models, Metrics::new(), keys, Limits::default(), None, routes))
}

/// `[providers.NAME]` of a kind at an address.
pub(crate) fn provider(name: &str, kind: &str, url: &str, more: &str) -> String {
    section(name, kind, &format!("{url}/v1"), more)
}

/// The same, where the path belongs to the address.
pub(crate) fn section(name: &str, kind: &str, base_url: &str, more: &str) -> String {
    let key = if matches!(kind, "compatible" | "vllm") { "" } else { "key = \"key-of-a-test\"\n" };
    let ca = authority().display();
    format!(
        "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"{base_url}\"\nca = \"{ca}\"\n{key}\
         {more}\n"
    )
}

/// One authority: reading those of the system takes a tenth of a second for each provider.
fn authority() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let names = ["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let file = std::env::temp_dir().join(format!("hearth-route-{}.pem", std::process::id()));
        std::fs::write(&file, made.cert.pem()).expect("a file");
        file
    })
}

/// The head of an answer, its body unread.
pub(crate) async fn open(router: &Router, request: Request<Body>) -> Response<Body> {
    let service = TowerToHyperService::new(router.clone());
    service.call(request).await.expect("a router does not fail")
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = open(router, request).await.into_parts();
    let whole = tokio::time::timeout(Duration::from_secs(60), body.collect()).await;
    let bytes = whole.expect("an end").expect("a whole body").to_bytes().to_vec();
    let said = parts.headers.get("content-length").map(HeaderValue::as_bytes);
    is_as_long_as_it_says(said, bytes.len());
    Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
}

pub(crate) fn request(key: &str, path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    let request = if key.is_empty() {
        request
    } else {
        request.header("authorization", format!("Bearer {key}"))
    };
    request.body(body.to_string().into()).expect("a request")
}

/// Asks in a dialect.
pub(crate) async fn ask(router: &Router, inbound: Inbound, model: &str, stream: bool) -> Answer {
    let (path, body) = inbound.request(model, stream, "hi");
    send(router, request("", &path, &body)).await
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..4_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
