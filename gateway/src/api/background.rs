//! Responses that are made while nobody waits: their request is answered at once, they run to
//! their end whoever leaves, and whoever asks sees how far they are.
//!
//! One is a stream that this process reads itself. What it says is kept in memory for those who
//! follow it, and for a while after its end. That it is being made stands in the place where
//! responses are kept, with a time until which whoever makes it answers for it: so another gateway
//! knows of it, and a process that was killed leaves one that has failed.

mod follow;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body as HttpBody;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use wire::{ApiError, ErrorKind};

use super::App;
use super::body::Body;
use super::envelope::Caller;
use super::error::Failure;
use super::generate::{self, Question, json as answer};
use super::kept::{Keep, Owner, failed};
use follow::{Feed, Feeds};

/// Made at once.
const AT_ONCE_MAX: usize = 256;

/// One that is not over then is ended.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// Whoever makes one says so often that they live, and is taken for lost after so long.
const RENEW: Duration = Duration::from_secs(2);
const LEASE: Duration = Duration::from_secs(30);

/// Longest wait for the beginning of one, and for the end of one that is cancelled.
const BEGIN: Duration = Duration::from_secs(30);
const CANCEL: Duration = Duration::from_secs(5);

/// All that this process makes, and has made a moment ago.
pub(super) struct Background {
    places: Arc<Semaphore>,
    feeds: Arc<Mutex<Feeds>>,
}

impl Default for Background {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE_MAX)), feeds: Arc::default() }
    }
}

impl Background {
    /// What a response says that is made here, or was a moment ago.
    pub(super) fn feed(&self, owner: &Owner, id: &str) -> Option<Arc<Feed>> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.get(id).filter(|feed| feed.owner.shares(owner))
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a response's maker has been silent for too long.
pub(super) fn is_lost(lost_at: i64) -> bool {
    lost_at != 0 && lost_at <= now_ms()
}

/// What is shown of one whose maker was lost.
pub(super) fn lost(response: &mut Value) {
    response["status"] = json!("failed");
    let message = "The server that made this response was stopped before it was whole.";
    response["error"] = json!({ "code": "server_error", "message": message });
}

/// The same request, streamed, and whether its caller follows the stream.
fn streamed(question: &Question) -> Result<(Question, bool), Failure> {
    let mut fields: Value = serde_json::from_slice(&question.body).unwrap_or_default();
    let follows = fields.get("stream") == Some(&Value::Bool(true));
    if follows {
        return Ok((question.clone(), true));
    }
    match fields.get("stream") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(_) => {
            let message = "Invalid type for 'stream': expected a boolean.";
            let error = ApiError::new(ErrorKind::Invalid, "invalid_type", message);
            return Err(error.with_param("stream").into());
        }
    }
    fields["stream"] = Value::Bool(true);
    let body = Arc::new(Body::of(fields.to_string().into_bytes().into()));
    Ok((Question { body, ..question.clone() }, false))
}

/// Begins with a response and answers at once.
pub(super) async fn serve(
    app: &Arc<App>,
    caller: Caller,
    question: Question,
) -> Result<Response, Failure> {
    let full = |_| {
        let message = "As many responses are made in the background as there can be; try again.";
        Failure::new(ErrorKind::Overloaded, "overloaded", message)
    };
    let place = Arc::clone(&app.background.places).try_acquire_owned().map_err(full)?;
    let (asked, follows) = streamed(&question)?;
    let owner = Owner::of(&caller);
    let who = caller.who.clone();
    let response = generate::answer(Arc::clone(app), caller, asked).await?;
    let Some(keep) = response.extensions().get::<Arc<Keep>>().cloned() else {
        return Err(broken());
    };
    // What is recorded is what it says, not what its caller is told now.
    let mut body = match who {
        Some(who) => who.said.answered(response.into_body()),
        None => response.into_body(),
    };
    let feed = Arc::new(Feed::new(owner.clone()));
    let began = timeout(BEGIN, first(&mut body, &feed)).await;
    let made = began.ok().flatten().ok_or_else(broken)?;
    let id = made.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let lost_at = now_ms() + i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
    let begun = keep.begin(&made, lost_at).await;
    begun.map_err(|error| failed("response", &error))?;
    let feeds = Arc::clone(&app.background.feeds);
    feeds.lock().unwrap_or_else(PoisonError::into_inner).put(id.clone(), Arc::clone(&feed));
    let run = Run { app: Arc::clone(app), owner, id, keep, made: made.clone(), _place: place };
    tokio::spawn(run.run(body, Arc::clone(&feed)));
    if follows {
        return Ok(feed.stream(None));
    }
    Ok(answer(made.to_string()))
}

fn broken() -> Failure {
    Failure::new(ErrorKind::Internal, "engine_error", "The response ended before it began.")
}

/// Reads up to the first event; the response that it shows.
async fn first(body: &mut HttpBody, feed: &Feed) -> Option<Value> {
    loop {
        let bytes = body.frame().await?.ok()?.into_data().unwrap_or_default();
        feed.push(&bytes);
        if let Some(made) = feed.response() {
            return Some(made);
        }
    }
}

/// One that is being made.
struct Run {
    app: Arc<App>,
    owner: Owner,
    id: String,
    keep: Arc<Keep>,
    /// As it began.
    made: Value,
    _place: OwnedSemaphorePermit,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself.
    Own,
    Cancelled,
    Late,
    /// It was deleted.
    Deleted,
}

impl Run {
    async fn run(self, mut body: HttpBody, feed: Arc<Feed>) {
        let deadline = Instant::now() + TIME_MAX;
        let reading = timeout_at(deadline, async {
            tokio::select! {
                () = read(&mut body, &feed) => End::Own,
                () = feed.stopped() => End::Cancelled,
                end = self.watch() => end,
            }
        });
        let end = reading.await.unwrap_or(End::Late);
        // Nobody makes it any more.
        drop(body);
        self.settle(end, &feed).await;
        feed.end();
    }

    /// Says that it is being made, until somebody wants otherwise.
    async fn watch(&self) -> End {
        let mut tick = interval(RENEW);
        loop {
            tick.tick().await;
            match self.app.kept.still_making(&self.owner, &self.id, LEASE).await {
                Ok(Some(false)) => {}
                Ok(Some(true)) => return End::Cancelled,
                Ok(None) => return End::Deleted,
                Err(error) => tracing::warn!(%error, "a response in the background"),
            }
        }
    }

    /// One that came to its own end was kept before its last event; all others are now. Whoever
    /// follows reads how it ended.
    async fn settle(&self, end: End, feed: &Feed) {
        let mut made = feed.response().unwrap_or_else(|| self.made.clone());
        let open = made["status"] == "in_progress" || made["status"] == "queued";
        match end {
            // Whoever ended it came too late.
            End::Own | End::Cancelled | End::Late if self.keep.is_kept() => return,
            End::Cancelled | End::Deleted if open => {
                made["status"] = json!("cancelled");
                feed.last(&json!({ "type": "response.cancelled", "response": made }));
            }
            _ if open => {
                lost(&mut made);
                feed.last(&json!({ "type": "response.failed", "response": made }));
            }
            _ => {}
        }
        if end == End::Deleted {
            return;
        }
        for _ in 0..3 {
            match self.keep.over(&made).await {
                Ok(()) => return,
                Err(govern::kept::KeptError::Missing(_)) => return,
                Err(error) => tracing::error!(%error, "a response was not kept"),
            }
            sleep(RENEW).await;
        }
    }
}

async fn read(body: &mut HttpBody, feed: &Feed) {
    while let Some(Ok(frame)) = body.frame().await {
        let bytes: Bytes = frame.into_data().unwrap_or_default();
        feed.push(&bytes);
    }
}

/// Stops one, wherever it is made, and waits a moment for its end.
pub(super) async fn cancel(app: &App, owner: &Owner, id: &str) -> Result<(), Failure> {
    let asked = app.kept.stop_making(owner, id).await;
    asked.map_err(|error| failed("response", &error))?;
    if let Some(feed) = app.background.feed(owner, id) {
        feed.stop();
        let _ = timeout(CANCEL, feed.ended()).await;
    }
    Ok(())
}
