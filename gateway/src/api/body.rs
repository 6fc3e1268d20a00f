//! Reads a request's body under bounds of size, of time and of what all bodies take together. A
//! body that is too large is read to its end within reason and thrown away: a client that is still
//! sending would otherwise see a broken connection in place of the answer.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use wire::ErrorKind;

use super::App;
use super::envelope::Caller;
use super::error::Failure;

/// Thrown away at most, after the answer is known.
const DISCARD_BYTES_MAX: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A whole body, and its part of the room that all bodies share.
pub(super) struct Body {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Body {
    /// One that was made here, and takes nobody's room.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self { bytes, _room: None }
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body.
///
/// # Errors
/// Too large, too slow, broken off, not JSON by its own words, or there is no room for it now.
pub(super) async fn read(request: Request, app: &App) -> Result<Body, Failure> {
    read_with_head(request, app).await.map(|(_, body)| body)
}

/// As [`read`], with the request's head.
pub(super) async fn read_with_head(request: Request, app: &App) -> Result<(Parts, Body), Failure> {
    let limits = &app.limits;
    let (parts, mut body) = request.into_parts();
    plain(&parts.headers)?;
    is_json(&parts.headers)?;
    let max = limits.body_bytes_max;
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > max) {
        // A client that asks first has sent nothing yet and needs no patience.
        if !parts.headers.contains_key(EXPECT) {
            discard(body).await;
        }
        return Err(too_large(max));
    }
    let deadline = Instant::now() + limits.body_total;
    let mut first: Option<Bytes> = None;
    let mut all = Vec::new();
    let mut room = None;
    loop {
        let frame = timeout_at(deadline.min(Instant::now() + limits.body_idle), body.frame());
        let data = match frame.await {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        if all.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > max {
            discard(body).await;
            return Err(too_large(max));
        }
        take_room(&app.bodies, &mut room, data.len())?;
        // Nearly all bodies come in one piece, which needs no copy.
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(before) => {
                all.reserve(announced.unwrap_or(0).max(before.len() + data.len()));
                all.extend_from_slice(&before);
                all.extend_from_slice(&data);
            }
        }
    }
    let bytes = first.unwrap_or_else(|| all.into());
    if let Some(who) = parts.extensions.get::<Caller>().and_then(|caller| caller.who.as_ref()) {
        who.said.asked(&bytes, &who.principal);
    }
    Ok((parts, Body { bytes, _room: room }))
}

/// Bytes are paid for as they come: what a client only announces takes nothing from others.
fn take_room(
    bodies: &Arc<Semaphore>,
    room: &mut Option<OwnedSemaphorePermit>,
    bytes: usize,
) -> Result<(), Failure> {
    let more =
        u32::try_from(bytes).ok().and_then(|n| Arc::clone(bodies).try_acquire_many_owned(n).ok());
    let message = "The server is reading as many large requests as it can; try again later.";
    let more = more.ok_or_else(|| Failure::new(ErrorKind::Overloaded, "overloaded", message))?;
    match room {
        Some(room) => room.merge(more),
        None => *room = Some(more),
    }
    Ok(())
}

/// A body that calls itself something else was not meant for this server: a form of some web page
/// that its reader's browser sent here. One that says nothing is taken at its contents.
fn is_json(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = given.to_str().unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    let end = kind.len().checked_sub("json".len()).and_then(|at| kind.get(at..));
    if end.is_some_and(|end| end.eq_ignore_ascii_case("json")) {
        return Ok(());
    }
    let short: String = text.chars().take(64).collect();
    let message = format!(
        "Unsupported content type: '{short}'. Send JSON, with the header 'content-type: \
         application/json'."
    );
    Err(Failure::new(ErrorKind::Invalid, "unsupported_content_type", message))
}

fn plain(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding.as_bytes() != b"identity" => Err(Failure::new(
            ErrorKind::Invalid,
            "unsupported_content_encoding",
            "Compressed bodies are not read; send the JSON as it is.",
        )),
        _ => Ok(()),
    }
}

async fn discard(mut body: body::Body) {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                break;
            }
        }
    };
    let _ = timeout(DISCARD_TIME, read).await;
}

fn too_large(max: usize) -> Failure {
    let message = format!("The body is larger than the {max} bytes that are read.");
    Failure::new(ErrorKind::TooLarge, "request_too_large", message)
}

fn too_slow() -> Failure {
    Failure::new(ErrorKind::Timeout, "request_timeout", "The body was not sent in time.")
}

fn broken(error: &axum::Error) -> Failure {
    let message = format!("The body broke off: {error}.");
    Failure::new(ErrorKind::Invalid, "incomplete_body", message)
}
