//! What a response in the background says: its events, for those who follow it from wherever they
//! left off.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use wire::sse::Events;

use super::super::kept::Owner;

/// Bytes of one response's events. One that says more cannot be followed any more, and whoever
/// follows it is told so.
const BYTES_MAX: usize = 8 << 20;

/// What such a follower reads.
const TOO_LONG: &str = "This response has more events than can be followed; it goes on, and can be \
                        had without 'stream'.";

/// Bytes of one event.
const EVENT_MAX: usize = 4 << 20;

/// Responses whose events are here, and for how long after their end.
const FEEDS_MAX: usize = 512;
const AFTER: Duration = Duration::from_secs(300);

/// All of them.
#[derive(Default)]
pub(super) struct Feeds {
    all: HashMap<String, Arc<Feed>>,
    order: VecDeque<String>,
}

impl Feeds {
    pub(super) fn put(&mut self, id: String, feed: Arc<Feed>) {
        self.sweep();
        while self.all.len() >= FEEDS_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.all.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.all.insert(id, feed);
    }

    pub(super) fn get(&mut self, id: &str) -> Option<Arc<Feed>> {
        self.sweep();
        self.all.get(id).cloned()
    }

    /// Forgets those that ended long ago.
    fn sweep(&mut self) {
        let Self { all, order } = self;
        all.retain(|_, feed| !feed.is_over());
        order.retain(|id| all.contains_key(id));
    }
}

/// One response's events.
pub(in super::super) struct Feed {
    pub(super) owner: Owner,
    state: Mutex<State>,
    news: watch::Sender<()>,
    stop: watch::Sender<bool>,
}

struct State {
    events: Events,
    /// Each event with its number, as it is written.
    written: Vec<(u64, Bytes)>,
    bytes: usize,
    /// There were more than there is room for.
    long: bool,
    /// The response as the last event shows it that does.
    response: Option<Value>,
    ended: Option<Instant>,
}

impl Feed {
    pub(super) fn new(owner: Owner) -> Self {
        let (news, _) = watch::channel(());
        let (stop, _) = watch::channel(false);
        Self { owner, state: Mutex::new(State::new()), news, stop }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes of the stream.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.state().push(bytes);
        self.news.send_replace(());
    }

    /// The response as far as events have shown it.
    pub(super) fn response(&self) -> Option<Value> {
        self.state().response.clone()
    }

    /// Its last event, where whoever made it has said none.
    pub(super) fn last(&self, event: &Value) {
        self.state().last(event);
    }

    pub(super) fn end(&self) {
        self.state().ended = Some(Instant::now());
        self.news.send_replace(());
    }

    /// Ended so long ago that nobody follows any more.
    fn is_over(&self) -> bool {
        self.state().ended.is_some_and(|ended| ended.elapsed() > AFTER)
    }

    pub(in super::super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until somebody stops it.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        let mut news = self.news.subscribe();
        while self.state().ended.is_none() && news.changed().await.is_ok() {}
    }

    /// It can be followed from its beginning.
    pub(in super::super) fn is_whole(&self) -> bool {
        !self.state().long
    }

    /// All events after this one, as they come.
    pub(in super::super) fn stream(self: &Arc<Self>, after: Option<u64>) -> Response {
        let next = after.map_or(0, |after| after.saturating_add(1));
        let follower = Some((Arc::clone(self), self.news.subscribe(), next));
        let body = stream::unfold(follower, |follower| async move {
            let (feed, mut news, mut next) = follower?;
            loop {
                let (bytes, over) = feed.state().since(&mut next);
                if over || !bytes.is_empty() {
                    let follower = (!over).then_some((feed, news, next));
                    let some = (!bytes.is_empty()).then(|| Bytes::from(bytes));
                    return some.map(|bytes| (Ok::<_, Infallible>(bytes), follower));
                }
                news.changed().await.ok()?;
            }
        });
        let mut response = Response::new(Body::from_stream(body));
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

impl State {
    fn new() -> Self {
        Self {
            events: Events::new(EVENT_MAX),
            written: Vec::new(),
            bytes: 0,
            long: false,
            response: None,
            ended: None,
        }
    }

    /// Written behind all others, with the next number.
    fn last(&mut self, event: &Value) {
        let number = self.written.last().map_or(0, |(number, _)| number + 1);
        let mut event = event.clone();
        event["sequence_number"] = number.into();
        let name = event["type"].as_str().unwrap_or_default();
        let text = Bytes::from(format!("event: {name}\ndata: {event}\n\n"));
        if !self.long {
            self.written.push((number, text));
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let Self { events, written, bytes: size, long, response, .. } = self;
        let mut each = |name: &str, data: &str| {
            let Ok(value) = serde_json::from_str::<Value>(data) else { return Ok(()) };
            let number = value.get("sequence_number").and_then(Value::as_u64);
            if let Some(shown) = value.get("response") {
                *response = Some(shown.clone());
            }
            let Some(number) = number else { return Ok(()) };
            let text = Bytes::from(format!("event: {name}\ndata: {data}\n\n"));
            *size += text.len();
            if *size > BYTES_MAX {
                *long = true;
                written.clear();
            } else {
                written.push((number, text));
            }
            Ok(())
        };
        if events.push(bytes, &mut each).is_err() {
            *long = true;
        }
    }

    /// What was written from this event on, and whether nothing follows. Where the rest is not
    /// here, it ends with an error, or it would look like an answer that was cut.
    fn since(&self, next: &mut u64) -> (Vec<u8>, bool) {
        let from = self.written.partition_point(|(number, _)| number < next);
        let mut out = Vec::new();
        for (number, text) in &self.written[from..] {
            out.extend_from_slice(text);
            *next = number + 1;
        }
        if self.long {
            let error = json!({ "type": "error", "sequence_number": next, "code": "stream_too_long",
                "message": TOO_LONG, "param": null });
            out.extend_from_slice(format!("event: error\ndata: {error}\n\n").as_bytes());
        }
        (out, self.ended.is_some() || self.long)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::super::super::envelope::Caller;
    use super::*;

    fn event(number: u64) -> String {
        format!("event: e\ndata: {{\"type\":\"e\",\"sequence_number\":{number}}}\n\n")
    }

    #[test]
    fn events_come_whole_and_once_wherever_they_are_cut() {
        let all: String = (0..5).map(event).collect();
        for cut in 0..all.len() {
            let mut state = State::new();
            let mut next = 0;
            state.push(&all.as_bytes()[..cut]);
            let (mut found, _) = state.since(&mut next);
            state.push(&all.as_bytes()[cut..]);
            found.extend(state.since(&mut next).0);
            assert_eq!(String::from_utf8(found).expect("text"), all, "{cut}");
            assert!(state.since(&mut next).0.is_empty());
            let (rest, over) = state.since(&mut 3);
            assert_eq!(String::from_utf8(rest).expect("text"), event(3) + &event(4));
            assert!(!over);
        }
    }

    /// A feed of a response that says more than there is room for.
    fn fill(mut push: impl FnMut(&[u8])) {
        let filler = "x".repeat(1 << 20);
        for number in 0..9 {
            let text = format!("data: {{\"sequence_number\":{number},\"x\":\"{filler}\"}}\n\n");
            push(text.as_bytes());
        }
    }

    #[test]
    fn what_has_no_room_is_not_followed() {
        let mut state = State::new();
        fill(|bytes| state.push(bytes));
        assert!(state.long && state.written.is_empty());
        assert!(state.since(&mut 0).1, "whoever follows is told so");
    }

    /// A stream that just ended looked like one that was cut.
    #[tokio::test]
    async fn a_follower_is_told_why_it_ends() {
        let somebody = Caller { background: true, ..Caller::new(1, "r".into(), Instant::now()) };
        let feed = Arc::new(Feed::new(Owner::of(&somebody)));
        feed.push(event(0).as_bytes());
        let mut body = feed.stream(None).into_body().into_data_stream();
        let first = body.next().await.expect("an event").expect("bytes");
        assert_eq!(first, event(0));
        fill(|bytes| feed.push(bytes));
        let last = body.next().await.expect("an event").expect("bytes");
        let last = std::str::from_utf8(&last).expect("text");
        let data = last.strip_prefix("event: error\ndata: ").expect("an error");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!("error"), &json!(1)));
        assert_eq!(data["code"], "stream_too_long");
        assert!(body.next().await.is_none(), "once");
    }
}
