//! The client side of the commands that talk to a server.

use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use reqwest::{Client, Response};
use serde_json::Value;

use super::exit::{self, Failure};

/// A line of a stream longer than this is not one of ours.
const LINE_BYTES_MAX: usize = 4 << 20;

/// A server, and the key to show it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Server {
    /// The server
    #[arg(long, value_name = "URL", env = "HEARTH_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// An open client for one server.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    url: String,
    key: Option<String>,
}

impl Server {
    /// The key comes from `HEARTH_API_KEY`: other users of a machine see command lines.
    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        let client = Client::builder()
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            // One connection per request in flight: latency is measured, not queueing here.
            .pool_max_idle_per_host(1024)
            .build()
            .map_err(|error| exit::internal(format!("no HTTP client: {error}")))?;
        let keys = std::env::var("HEARTH_API_KEY").unwrap_or_default();
        let key = keys.split(',').next().map(|key| key.trim().to_owned());
        let url = self.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Connection { client, url, key: key.filter(|key| !key.is_empty()) })
    }
}

impl Connection {
    /// Sends a chat request; `Err` says what to do about it.
    pub(super) async fn chat(&self, body: &Value) -> Result<Response, Failure> {
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(body);
        self.send(request).await
    }

    /// Sends JSON to a path and reads JSON.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.send(self.client.post(format!("{}{path}", self.url)).json(body)).await?;
        answer.json().await.map_err(|error| {
            exit::unavailable(format!("{} does not answer as Hearth: {error}", self.url))
        })
    }

    /// Names of the models that the server itself answers for, the default one first. Nobody is to
    /// pay for a provider's without having named it: those are called `PROVIDER/MODEL`.
    pub(super) async fn models(&self) -> Result<Vec<String>, Failure> {
        let answer = self.send(self.client.get(format!("{}/v1/models", self.url))).await?;
        let list: Value = answer.json().await.map_err(|error| {
            exit::unavailable(format!("{} does not answer as a model server: {error}", self.url))
        })?;
        let all = list["data"].as_array().into_iter().flatten();
        let text = |model: &Value, name: &str| model[name].as_str().map(str::to_owned);
        let is_own = |model: &&Value| {
            let (id, owner) = (text(model, "id"), text(model, "owned_by"));
            let of = id.as_deref().and_then(|id| id.split_once('/')).map(|(of, _)| of);
            of.is_none() || of != owner.as_deref()
        };
        Ok(all.filter(is_own).filter_map(|model| text(model, "id")).collect())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answer = request.send().await.map_err(|error| self.not_there(&error))?;
        let code = answer.status();
        if code.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let told: Option<Value> = serde_json::from_str(&text).ok();
        let told = told.as_ref().and_then(|body| body["error"]["message"].as_str());
        let told = told.unwrap_or(&text).chars().take(500).collect::<String>();
        let advice = match code.as_u16() {
            401 | 403 => ". Set HEARTH_API_KEY to a key of this server",
            429 | 503 => ". The server is busy or still loading; try again in a moment",
            _ => "",
        };
        Err(exit::unavailable(format!("{} answered {code}: {told}{advice}", self.url)))
    }

    fn not_there(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() {
            return exit::unavailable(format!(
                "no server answers at {}. Start one with `hearth serve` in another terminal, or \
                 name yours with --url",
                self.url
            ));
        }
        exit::unavailable(format!("{}: {error}", self.url))
    }
}

/// The `data:` values of an event stream, one JSON value each, until `[DONE]` or the end.
pub(super) fn events(answer: Response) -> impl Stream<Item = Result<Value, Failure>> {
    let state = (answer.bytes_stream(), Vec::<u8>::new());
    futures_util::stream::try_unfold(state, |(mut chunks, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let Some(data) = line.strip_prefix(b"data:") else { continue };
                let data = data.trim_ascii();
                if data == b"[DONE]" {
                    return Ok(None);
                }
                let value = serde_json::from_slice(data).map_err(|error| {
                    exit::unavailable(format!("the server sent an event that is no JSON: {error}"))
                })?;
                return Ok(Some((value, (chunks, buffer))));
            }
            if buffer.len() > LINE_BYTES_MAX {
                return Err(exit::unavailable("the server sent a line without an end"));
            }
            let broken = |error| exit::unavailable(format!("the answer broke off: {error}"));
            match chunks.try_next().await.map_err(broken)? {
                Some(chunk) => buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    })
}
