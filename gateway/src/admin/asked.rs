//! An admin request as its handler gets it: who, what, and the permission that it needs, which can
//! be judged again at any moment.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap};
use bytes::Bytes;
use govern::directory::Directory;
use govern::ledger::writer::Note;
use govern::{Governor, Id, Millis, Principal, Scope};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use wire::{ApiError, ErrorKind};

use super::caller::Caller;
use super::query::Query;
use super::refusal::Refusal;
use super::table::Route;
use crate::api::Failure;
use crate::server::Peer;

/// A price sheet of some thousand models is the longest body there is.
const BODY_BYTES_MAX: usize = 2 << 20;
const BODY_TIME: Duration = Duration::from_secs(30);

/// A request.
pub(super) struct Asked {
    pub(super) governor: Governor,
    pub(super) principal: Arc<Principal>,
    pub(super) route: Arc<Route>,
    /// What the path names. What can be no id is an empty one, which names nothing.
    pub(super) id: Id,
    pub(super) query: Query,
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
    source: Option<String>,
}

impl Asked {
    /// Reads a request whose caller is known.
    pub(super) async fn read(
        governor: Governor,
        route: Arc<Route>,
        request: Request,
    ) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let principal = principal(&parts.extensions)?;
        let query = Query::read(&parts.uri, route.query())?;
        is_json(&parts.headers)?;
        let body = timeout(BODY_TIME, to_bytes(body, BODY_BYTES_MAX)).await.map_err(|_| {
            let message = "The body was not sent in time.";
            Failure::new(ErrorKind::Timeout, "request_timeout", message)
        })?;
        let body = body.map_err(|_| {
            let message = format!("The body is not read: at most {BODY_BYTES_MAX} bytes are.");
            Failure::new(ErrorKind::TooLarge, "request_too_large", message)
        })?;
        let id = route.id_in(parts.uri.path()).and_then(Id::of).unwrap_or_default();
        let source = parts.extensions.get::<Peer>().map(|peer| peer.0.to_string());
        let headers = parts.headers;
        Ok(Self { governor, principal, route, id, query, body, headers, source })
    }

    /// The caller as of now, and the place that the request is about, if they may.
    ///
    /// # Errors
    /// They may not.
    pub(super) fn judge<'a>(
        &'a self,
        directory: &'a Directory,
        now: Millis,
    ) -> Result<(Caller<'a>, Scope), Refusal> {
        let caller = Caller::of(&self.principal, directory, now)?;
        let place = self.route.judge(&caller, self)?;
        Ok((caller, place))
    }

    /// The body as a document.
    ///
    /// # Errors
    /// It is none; the first field that is wrong or unknown is named.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let why = format!("The body cannot be read: {}.", error.inner());
            let error = ApiError::new(ErrorKind::Invalid, "invalid_value", &why);
            match field_of(&why) {
                Some(field) if path == "." => error.with_param(field),
                _ if path == "." => error,
                Some(field) if !path.ends_with(field) => {
                    error.with_param(format!("{path}.{field}"))
                }
                _ => error.with_param(path),
            }
        })?;
        reader
            .end()
            .map_err(|error| Refusal::invalid("body", format!("After the end: {error}.")))?;
        Ok(read)
    }

    /// The body as a document; without a body an empty one.
    pub(super) fn body_or_none<T: DeserializeOwned + Default>(&self) -> Result<T, Refusal> {
        if self.body.is_empty() { Ok(T::default()) } else { self.body() }
    }

    /// The line of the audit that says who has done this.
    pub(super) fn note(&self, now: Millis, action: &str, organisation: &str) -> NoteOf {
        let actor = self.principal.actor(self.source.as_deref());
        let mut body = Map::new();
        body.insert("action".to_owned(), json!(action));
        body.insert("actor".to_owned(), Value::Object(actor));
        NoteOf { at: now, organisation: organisation.to_owned(), body }
    }
}

/// A line of the audit that is being written.
pub(super) struct NoteOf {
    at: Millis,
    organisation: String,
    body: Map<String, Value>,
}

impl NoteOf {
    /// Adds what is known under a name.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.insert(name.to_owned(), value.into());
        self
    }

    /// The line.
    pub(super) fn end(self) -> Note {
        let body = Value::Object(self.body).to_string();
        Note { at: self.at, kind: "admin".to_owned(), organisation: self.organisation, body }
    }
}

/// Whoever the layer before has let in.
pub(super) fn principal(extensions: &Extensions) -> Result<Arc<Principal>, Refusal> {
    extensions.get::<Arc<Principal>>().cloned().ok_or_else(|| {
        let message = "This needs a key: send 'Authorization: Bearer hk-...'.";
        Failure::new(ErrorKind::Unauthorized, "invalid_api_key", message).into()
    })
}

/// The field that is unknown or missing: the path ends above it.
fn field_of(why: &str) -> Option<&str> {
    let marks = ["unknown field `", "missing field `", "duplicate field `"];
    marks.iter().find_map(|mark| why.split_once(mark)?.1.split('`').next())
}

/// A body that calls itself something else was not meant for this server: a form of some web page
/// that its reader's browser sent here.
fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    if kind.trim().to_ascii_lowercase().ends_with("json") {
        return Ok(());
    }
    let message = "Send JSON, with the header 'content-type: application/json'.";
    Err(Failure::new(ErrorKind::Invalid, "unsupported_content_type", message).into())
}
