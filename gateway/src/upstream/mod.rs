//! Providers: other services that answer in place of our own engine. Here is how each is reached,
//! what it is shown and how a request to it is put together; which one is asked is `crate::route`'s
//! affair, and what its answers say is `wire`'s.

mod auth;
mod client;
mod google;
mod http1;
pub mod kinds;
mod later;
mod line;
pub mod models;
pub mod reference;
mod refusal;
pub mod times;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use govern::policy::Label;
use govern::policy::pattern;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, Response, Uri};
use jiff::Timestamp;
use serde_json::{Map, Value};
use wire::{Dialect, ErrorKind};

use crate::api::Failure;
use crate::config::Secret;
use crate::config::routing::{LostFields, ProviderConfig, Span};
use crate::sigv4;
use auth::Auth;
use client::{Client, NoAnswer, Options, Proxy};
pub use kinds::Kind;
pub use line::AnswerBody;
use refusal::Refusal;

/// Bytes of a provider's error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Longest wait for them: others may be asked meanwhile.
const ERROR_TIME: Duration = Duration::from_secs(10);

/// How Amazon frames a stream.
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// Headers that belong to one connection, or that are made for each request.
const NOT_OPERATORS: [&str; 14] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How the path of OpenAI's chat ends; beside it is that of plain completions.
const CHAT_ROUTE: &str = "/chat/completions";

/// A dialect of chats that a kind speaks.
fn chosen(kind: &Kind, name: &str) -> Result<Dialect, String> {
    let spoken = kind.speaks.iter().map(|(own, _)| *own).filter(|own| kinds::is_of_chats(*own));
    let all: Vec<_> = spoken.collect();
    all.iter().copied().find(|own| own.name() == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|own| own.name()).collect();
        format!("dialect: chats of a {} are in {}", kind.name, names.join(", "))
    })
}

/// A provider.
pub struct Provider {
    /// The operator's name for it.
    pub name: String,
    /// Its row of the table.
    pub kind: &'static Kind,
    /// The most secret label that it may see.
    pub max_label: Label,
    /// Patterns of models that may be asked by `NAME/MODEL`.
    models: Vec<String>,
    /// What becomes of fields that its dialect has no words for.
    pub lost_fields: LostFields,
    /// The only dialect that it is asked for chats in.
    dialect: Option<Dialect>,
    /// Whether it goes on with plain prompts, where that is not as its kind does.
    completions: Option<bool>,
    base: String,
    /// Where dialects are spoken whose paths name no model.
    places: Vec<(Dialect, Uri)>,
    auth: Auth,
    /// Of its kind: a caller's own word goes before them.
    usual: HeaderMap,
    /// The operator's, which go before a caller's.
    headers: HeaderMap,
    body: Map<String, Value>,
    /// Longest wait for the head of an answer, and for the first event of a stream.
    pub first_byte: Duration,
    /// Longest silence within an answer.
    pub idle: Duration,
    /// Longest wait for the end of an answer that is no stream.
    pub total: Duration,
    /// The same of a stream.
    pub stream: Duration,
    client: Client,
}

/// What is sent to a provider.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// In which dialect.
    pub dialect: Dialect,
    /// The provider's name of the model.
    pub model: &'a str,
    /// The answer is to be a stream.
    pub stream: bool,
    /// The request.
    pub body: Vec<u8>,
    /// The caller's headers that mean something to the dialect (`anthropic-beta`).
    pub headers: &'a [(HeaderName, HeaderValue)],
}

/// Why a provider gives no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What the caller is told, if nobody else answers.
    pub failure: Failure,
    /// What that says of the provider.
    pub about: About,
}

/// What a failed attempt says of who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// It is not well: somebody else may answer.
    Ill,
    /// It is well and has enough to do: somebody else may answer; not before so many seconds.
    Busy(Option<u64>),
    /// It will not take this server's word: somebody else may answer, and the operator must look.
    Ours,
    /// It cannot be asked this in any way: somebody else may answer.
    Unfit,
    /// The request is at fault, whoever is asked.
    Request,
}

impl Provider {
    /// A provider as it is configured.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(name: &str, config: &ProviderConfig) -> Result<Self, String> {
        check_name(name)?;
        let wanted = config.kind.as_deref().unwrap_or(name);
        let kind = Kind::named(wanted).ok_or_else(|| {
            let all: Vec<_> = kinds::KINDS.iter().map(|kind| kind.name).collect();
            format!("kind: there is no `{wanted}`; known are {}", all.join(", "))
        })?;
        let (base, host) = base(kind, config)?;
        // Whoever writes an address down means it.
        let named = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok();
        let allowed = config.allow_internal.unwrap_or(named);
        if let Ok(address) = host.parse()
            && !allowed
            && client::is_internal(address)
        {
            return Err(format!("base_url: {host} is internal, and allow_internal is false"));
        }
        let time = |own: Option<Span>, usual| own.map_or(usual, |span| span.0);
        let proxy = config.proxy.as_ref().map(Secret::reveal).map(Proxy::parse).transpose()?;
        let ca = config.ca.as_deref().map(client::authorities).transpose();
        let options = Options {
            connect: time(config.connect_timeout, times::CONNECT),
            internal: allowed,
            proxy,
            ca: ca.map_err(|error| format!("ca: {error}"))?,
        };
        let auth = Auth::new(kind, config, &options)?;
        let plain = kind.speaks.iter().filter(|(_, path)| !path.contains("{model}"));
        let place = |(dialect, path): &(Dialect, &str)| {
            let uri = [&base, *path].concat().parse();
            uri.map(|uri| (*dialect, uri)).map_err(|error| format!("base_url: {error}"))
        };
        let mut places = plain.map(place).collect::<Result<Vec<_>, String>>()?;
        if config.completions == Some(true) && kind.path(Dialect::Completions).is_none() {
            let chat = kind.path(Dialect::Chat).and_then(|path| path.strip_suffix(CHAT_ROUTE));
            let front = chat.ok_or_else(|| format!("completions: a {wanted} has none"))?;
            places.push(place(&(Dialect::Completions, &[front, "/completions"].concat()))?);
        }
        Ok(Self {
            name: name.to_owned(),
            kind,
            max_label: config.max_label.unwrap_or(kind.max_label),
            models: config.models.clone().unwrap_or_else(|| vec!["*".to_owned()]),
            lost_fields: config.lost_fields.unwrap_or_default(),
            dialect: config.dialect.as_deref().map(|name| chosen(kind, name)).transpose()?,
            completions: config.completions,
            base,
            places,
            usual: usual(kind),
            headers: headers(config, &auth)?,
            auth,
            body: config.body.clone(),
            first_byte: time(config.first_byte_timeout, times::FIRST_BYTE),
            idle: time(config.idle_timeout, times::IDLE),
            total: time(config.total_timeout, times::TOTAL),
            stream: time(config.stream_timeout, times::STREAM),
            client: Client::new(&options)?,
        })
    }

    /// Whether a model may be asked by its own name.
    #[must_use]
    pub fn offers(&self, model: &str) -> bool {
        self.models.iter().any(|wanted| pattern::matches(wanted, model))
    }

    /// Whether it is asked about a model in this dialect, without a translation.
    #[must_use]
    pub fn speaks(&self, dialect: Dialect, model: &str) -> bool {
        match (dialect, self.dialect) {
            (Dialect::Completions, _) => {
                self.completions.unwrap_or_else(|| self.kind.completes(model))
            }
            (dialect, Some(only)) if kinds::is_of_chats(dialect) => dialect == only,
            (dialect, _) => self.kind.path(dialect).is_some(),
        }
    }

    /// The dialect that chats in others are translated to.
    #[must_use]
    pub fn main(&self) -> Dialect {
        self.dialect.unwrap_or_else(|| self.kind.main())
    }

    /// Sends a request; ready when the head of a good answer is there.
    ///
    /// # Errors
    /// It gives no answer, or an error.
    pub async fn ask(&self, call: Call<'_>) -> Result<Response<AnswerBody>, Trouble> {
        let (dialect, stream) = (call.dialect, call.stream);
        let request = self.request(call).await.map_err(|why| self.ours(&why))?;
        let answer = self.client.send(request, self.first_byte).await;
        let answer = answer.map_err(|why| self.silent(&why))?;
        let status = answer.status();
        if status.is_success() {
            return self.fits(answer, dialect, stream);
        }
        Err(self.refused(dialect, answer).await)
    }

    /// A stream that is none, or the other way round, is somebody else's page.
    fn fits(
        &self,
        answer: Response<AnswerBody>,
        dialect: Dialect,
        stream: bool,
    ) -> Result<Response<AnswerBody>, Trouble> {
        let text = |name| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        };
        let (kind, encoding) = (text(CONTENT_TYPE), text(CONTENT_ENCODING));
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(64).collect();
        // Nobody asked for that, and nobody here could read it.
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            let encoding: String = short(encoding);
            return Err(self.broken(&format!("it answers with content encoded as '{encoding}'")));
        }
        let bare = kind.split(';').next().unwrap_or_default().trim();
        let is = |kind: &str| bare.eq_ignore_ascii_case(kind);
        let fits = match (stream, dialect) {
            (true, Dialect::Converse) => is(EVENT_STREAM),
            (true, _) => is("text/event-stream"),
            (false, _) => is("application/json") || bare.to_ascii_lowercase().ends_with("+json"),
        };
        if fits {
            return Ok(answer);
        }
        let kind: String = short(kind);
        Err(self.broken(&format!("it answers with content of type '{kind}'")))
    }

    async fn request(&self, mut call: Call<'_>) -> Result<Request<Bytes>, String> {
        let uri = self.uri(&call)?;
        let body = self.overlay(call.dialect, std::mem::take(&mut call.body))?;
        let mut request = Request::new(Bytes::from(body));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, uri);
        *request.headers_mut() = self.headers(&call);
        self.auth.sign(request).await
    }

    fn headers(&self, call: &Call<'_>) -> HeaderMap {
        let mut headers = self.usual.clone();
        for (name, _) in call.headers {
            headers.remove(name);
        }
        for (name, value) in call.headers {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.headers {
            // What one side tries out does not end what the other does.
            if name.as_str().ends_with("-beta") {
                headers.append(name, value.clone());
            } else {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = match (call.stream, call.dialect) {
            (true, Dialect::Converse) => EVENT_STREAM,
            (true, _) => "text/event-stream",
            (false, _) => "application/json",
        };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers
    }

    fn uri(&self, call: &Call<'_>) -> Result<Uri, String> {
        let Call { dialect, model, stream, .. } = call;
        if let Some((_, uri)) = self.places.iter().find(|(own, _)| own == dialect) {
            return Ok(uri.clone());
        }
        let path = self.kind.path(*dialect).and_then(|path| path.split_once("{model}"));
        let (before, behind) =
            path.ok_or_else(|| format!("{} does not speak the dialect {dialect}", self.kind.name))?;
        let method = kinds::method(*dialect, *stream);
        let model = sigv4::encode(model, false);
        let url = [&self.base, before, &*model, behind, method].concat();
        url.parse().map_err(|error| format!("{url}: {error}"))
    }

    /// Gives fields the provider's own names, and puts the operator's over the caller's.
    fn overlay(&self, dialect: Dialect, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let renames = if dialect == Dialect::Chat { self.kind.renames } else { &[] };
        if self.body.is_empty() && renames.is_empty() {
            return Ok(body);
        }
        let mut fields: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        for (name, own) in renames {
            if let (Some(value), Some(own)) = (fields.shift_remove(*name), own) {
                fields.entry(*own).or_insert(value);
            }
        }
        fields.extend(self.body.clone());
        serde_json::to_vec(&fields).map_err(|error| error.to_string())
    }

    async fn refused(&self, dialect: Dialect, answer: Response<AnswerBody>) -> Trouble {
        let (head, body) = answer.into_parts();
        let status = head.status.as_u16();
        let body = Limited::new(body, ERROR_BYTES_MAX);
        let body = tokio::time::timeout(self.idle.min(ERROR_TIME), body.collect()).await;
        let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        let refusal = Refusal { dialect, status, headers: &head.headers, body: &body };
        let error = refusal.error();
        let (provider, message) = (&self.name, error.message.clone());
        let trouble = refusal.trouble(provider, error, Timestamp::now());
        if trouble.about == About::Ours {
            tracing::warn!(provider, status, message, "a provider does not serve this server");
        } else {
            tracing::info!(provider, status, message, "a provider refused");
        }
        if status == 401 {
            self.auth.refused();
        }
        trouble
    }

    /// Nothing of an answer was there in time.
    #[must_use]
    pub fn late(&self) -> Trouble {
        self.silent(&NoAnswer::Late(self.first_byte))
    }

    /// An answer was under way for too long.
    #[must_use]
    pub fn endless(&self) -> Trouble {
        self.silent(&NoAnswer::Late(self.total))
    }

    fn silent(&self, why: &NoAnswer) -> Trouble {
        tracing::info!(provider = self.name, %why, "a provider gives no answer");
        let (kind, words) = match why {
            NoAnswer::Late(_) => (ErrorKind::Deadline, "did not answer in time"),
            NoAnswer::Unreached(_) => (ErrorKind::Upstream, "cannot be reached"),
            NoAnswer::Broke(_) => (ErrorKind::Upstream, "broke off before it answered"),
        };
        let message = format!("The provider '{}' {words}.", self.name);
        Trouble { failure: Failure::new(kind, "provider_error", message), about: About::Ill }
    }

    /// An answer that is none.
    #[must_use]
    pub fn broken(&self, why: &str) -> Trouble {
        tracing::warn!(provider = self.name, why, "a provider's answer cannot be used");
        let message = format!("The provider '{}' gave an answer that cannot be used.", self.name);
        let failure = Failure::new(ErrorKind::Upstream, "provider_error", message);
        Trouble { failure, about: About::Ill }
    }

    fn ours(&self, why: &str) -> Trouble {
        tracing::error!(provider = self.name, why, "a request to a provider cannot be made");
        let message = format!("The provider '{}' cannot be asked.", self.name);
        let failure = Failure::new(ErrorKind::Upstream, "provider_error", message);
        Trouble { failure, about: About::Ours }
    }
}

/// What a section may be called: names of models begin so, and patterns of price sheets.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err("a name has 1 to 64 letters, digits, '-', '_' or '.'".to_owned());
    }
    if ["cache", "local"].contains(&name) {
        return Err("`cache` and `local` mean others in the ledger".to_owned());
    }
    Ok(())
}

/// Where it answers, and its host.
fn base(kind: &Kind, config: &ProviderConfig) -> Result<(String, String), String> {
    let base = config.base_url.as_deref().unwrap_or(kind.base_url).trim_end_matches('/');
    if base.is_empty() {
        return Err("base_url is missing".to_owned());
    }
    let mut out = base.to_owned();
    for (name, value) in [("region", &config.region), ("project", &config.project)] {
        let place = format!("{{{name}}}");
        let wanted = out.contains(&place);
        match value {
            None if wanted => return Err(format!("{name} is missing")),
            None => {}
            // Amazon's signatures name the region, wherever they go.
            Some(_) if !wanted && (kind.auth != kinds::Auth::Aws || name != "region") => {
                return Err(format!("{name}: `{base}` has no place for it"));
            }
            Some(value) => {
                // A project may be a domain's: `example.com:name`.
                let more: &[u8] = if name == "project" { b"-.:" } else { b"-" };
                let plain = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
                if value.is_empty() || !value.bytes().all(plain) {
                    return Err(format!("{name}: `{value}` is none"));
                }
                out = out.replace(&place, value);
            }
        }
    }
    let url: Uri = out.parse().map_err(|_| format!("base_url: `{out}` is no URL"))?;
    let host = url.host().unwrap_or_default();
    if !matches!(url.scheme_str(), Some("http" | "https")) || host.is_empty() {
        return Err(format!("base_url: `{out}` is not http:// or https:// with a host"));
    }
    // What would be lost on the way is no part of it. It is not shown: a password might be in it.
    if out.contains(['?', '#', '@']) {
        return Err(
            "base_url holds a name, a query or a fragment; keys go into key, and versions \
                    into headers"
                .to_owned(),
        );
    }
    let host = host.trim_matches(['[', ']']).to_owned();
    // A tunnel is taken to be for TLS where no port is named.
    if url.port().is_none() && url.scheme_str() == Some("http") {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let rest = &out["http://".len() + authority.len()..];
        out = format!("http://{authority}:80{rest}");
    }
    Ok((out, host))
}

/// What a kind's requests carry.
fn usual(kind: &Kind) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let agent = concat!("hearth/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    for (name, value) in kind.headers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    headers
}

/// The operator's headers.
fn headers(config: &ProviderConfig, auth: &Auth) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let own = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("headers: `{}` is no name of one", name.escape_debug()))?;
        if NOT_OPERATORS.contains(&own.as_str()) {
            return Err(format!("headers.{name}: this server sets it itself"));
        }
        if auth.header() == Some(&own) {
            return Err(format!("headers.{name}: key is sent in it already"));
        }
        let mut value = HeaderValue::from_str(value.reveal())
            .map_err(|_| format!("headers.{name} holds what a header cannot"))?;
        value.set_sensitive(true);
        headers.insert(own, value);
    }
    Ok(headers)
}

/// All providers, by name.
pub type Providers = std::collections::BTreeMap<String, Arc<Provider>>;
