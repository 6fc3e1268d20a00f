//! An answer under way, and all who read it: whoever asked first, and whoever asks the same while
//! it is made. A task of its own makes it, for as long as anybody reads; all read the same bytes.
//!
//! What one has not read yet is kept for them. An answer that is too long to be given again is not
//! joined any more, and is made no faster than the slowest of its readers reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use tokio::sync::{Notify, oneshot, watch};
use wire::ErrorKind;

use super::super::bill;
use super::super::error::Failure;
use super::{Cache, Ended, Entry, Head, Key, plain};

/// All answers under way that may be joined.
pub(super) struct Flights {
    all: Arc<Mutex<HashMap<Key, Arc<Flight>>>>,
    /// Bytes of one.
    bytes_max: usize,
}

/// What somebody is who asks.
pub(super) enum Joined {
    /// The first.
    Leads(Lead),
    /// Another has asked before.
    Follows(Reader),
}

/// One of them.
struct Flight {
    feed: Mutex<Feed>,
    /// There is more, or nothing will follow.
    news: watch::Sender<()>,
    /// Somebody has read, or left.
    read: Notify,
}

#[derive(Default)]
struct Feed {
    head: Option<Head>,
    /// What was made and not yet read by all.
    chunks: Vec<Bytes>,
    /// Chunks before those.
    before: usize,
    /// Bytes of those that are there.
    bytes: usize,
    /// It is too long to be given again.
    long: bool,
    end: Option<End>,
    /// How far each reader has come, in chunks.
    readers: HashMap<u64, usize>,
    readers_so_far: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing follows.
    Over,
    /// It came to nothing, before its head or within its body.
    Broken,
}

impl Flight {
    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(self: &Arc<Self>) -> Reader {
        let mut feed = self.feed();
        feed.readers_so_far += 1;
        let number = feed.readers_so_far;
        feed.readers.insert(number, 0);
        Reader { flight: Arc::clone(self), number, news: self.news.subscribe() }
    }

    fn end(&self, end: End) {
        self.feed().end.get_or_insert(end);
        self.news.send_replace(());
    }

    /// Waits until nobody reads any more.
    async fn left(&self) {
        loop {
            let read = self.read.notified();
            if self.feed().readers.is_empty() {
                return;
            }
            read.await;
        }
    }

    /// Waits until there is room for more.
    async fn room(&self, bytes_max: usize) {
        loop {
            let read = self.read.notified();
            {
                let mut feed = self.feed();
                if !feed.long {
                    return;
                }
                feed.drop_what_was_read();
                if feed.bytes <= bytes_max {
                    return;
                }
            }
            read.await;
        }
    }
}

impl Feed {
    fn drop_what_was_read(&mut self) {
        let slowest = self.readers.values().copied().min().unwrap_or(usize::MAX);
        let gone = slowest.saturating_sub(self.before).min(self.chunks.len());
        self.bytes -= self.chunks.drain(..gone).map(|chunk| chunk.len()).sum::<usize>();
        self.before += gone;
    }
}

impl Flights {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { all: Arc::default(), bytes_max }
    }

    /// Joins the answer under way, or leads.
    pub(super) fn join(&self, key: Key) -> Joined {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = all.get(&key) {
            return Joined::Follows(flight.reader());
        }
        let lead = self.lead_alone(key);
        all.insert(key, Arc::clone(&lead.flight));
        Joined::Leads(lead)
    }

    /// Leads an answer that nobody joins.
    pub(super) fn lead_alone(&self, key: Key) -> Lead {
        let (news, _) = watch::channel(());
        let flight = Arc::new(Flight { feed: Mutex::default(), news, read: Notify::new() });
        let (all, bytes_max) = (Arc::clone(&self.all), self.bytes_max);
        Lead { all, key, flight, bytes_max }
    }
}

/// Whoever makes an answer. Dropped, it is over for all who read it.
pub(super) struct Lead {
    all: Arc<Mutex<HashMap<Key, Arc<Flight>>>>,
    key: Key,
    flight: Arc<Flight>,
    bytes_max: usize,
}

impl Lead {
    /// From now on nobody joins.
    fn close(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            all.remove(&self.key);
        }
    }

    /// Passes the answer's body on; the whole of it, where it can be given again.
    async fn pass_on(&self, response: Response, head: &Head) -> Option<Entry> {
        let ended = response.extensions().get::<Ended>().cloned();
        let mut body = response.into_body();
        loop {
            self.flight.room(self.bytes_max).await;
            match body.frame().await {
                None => break,
                Some(Err(_)) => {
                    self.flight.end(End::Broken);
                    return None;
                }
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    let mut feed = self.flight.feed();
                    feed.bytes += bytes.len();
                    feed.chunks.push(bytes);
                    if feed.bytes > self.bytes_max && !feed.long {
                        feed.long = true;
                        drop(feed);
                        self.close();
                    }
                }
            }
            self.flight.news.send_replace(());
        }
        let feed = self.flight.feed();
        let whole = !feed.long && ended.is_none_or(|ended| ended.is_set());
        let entry = whole.then(|| {
            let body = plain::without_cost(feed.chunks.concat().into());
            Entry { head: head.clone(), body }
        });
        drop(feed);
        entry
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.close();
        self.flight.end(End::Broken);
    }
}

/// Has an answer made for whoever leads and all who join; what the first of them gets.
pub(super) async fn lead(
    cache: &Arc<Cache>,
    lead: Lead,
    answer: impl Future<Output = Result<Response, Failure>> + Send + 'static,
) -> Result<Response, Failure> {
    let (tell, told) = oneshot::channel();
    let (reader, flight) = (lead.flight.reader(), Arc::clone(&lead.flight));
    let cache = Arc::clone(cache);
    let make = async move {
        let response = match answer.await {
            Ok(response) if response.status() == StatusCode::OK => response,
            other => {
                // Dropped first: whoever follows tries again at once.
                drop(lead);
                let _ = tell.send(other);
                return;
            }
        };
        // What was cut where the leader's money ended, or could not be kept, is the leader's alone.
        if bill::has_notice(response.headers()) {
            drop(lead);
            let mut response = response;
            response.extensions_mut().insert(Alone);
            let _ = tell.send(Ok(response));
            return;
        }
        let head = Head::of(&response);
        let mut mine = Response::new(Body::empty());
        mine.headers_mut().extend(response.headers().clone());
        lead.flight.feed().head = Some(head.clone());
        lead.flight.news.send_replace(());
        let _ = tell.send(Ok(mine));
        let entry = lead.pass_on(response, &head).await;
        // Kept before nobody can join any more: who comes in between finds one or the other.
        if let Some(entry) = entry {
            cache.keep(lead.key, entry);
        }
        // Closed before anybody hears the end: whoever asks again then joins nothing that is over.
        lead.close();
        lead.flight.end(End::Over);
    };
    tokio::spawn(async move {
        tokio::select! {
            () = make => {}
            () = flight.left() => {}
        }
    });
    let broken = || Failure::new(ErrorKind::Internal, "internal_error", "The server failed.");
    let mut response = told.await.map_err(|_| broken())??;
    if response.status() == StatusCode::OK && response.extensions().get::<Alone>().is_none() {
        *response.body_mut() = reader.body(false);
    }
    Ok(response)
}

/// Goes along with an answer that nobody else is given.
#[derive(Clone)]
struct Alone;

/// Somebody who reads an answer under way.
pub(super) struct Reader {
    flight: Arc<Flight>,
    number: u64,
    news: watch::Receiver<()>,
}

impl Reader {
    /// Waits for the answer's head; `None`: it came to nothing.
    pub(super) async fn head(&mut self) -> Option<Head> {
        loop {
            {
                let feed = self.flight.feed();
                if feed.head.is_some() || feed.end.is_some() {
                    return feed.head.clone();
                }
            }
            self.news.changed().await.ok()?;
        }
    }

    /// The next bytes. `None`: nothing follows; an error: it broke.
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            {
                let mut feed = self.flight.feed();
                let at = feed.readers.get(&self.number).copied().unwrap_or_default();
                if let Some(chunk) = feed.chunks.get(at - feed.before).cloned() {
                    feed.readers.insert(self.number, at + 1);
                    drop(feed);
                    self.flight.read.notify_waiters();
                    return Some(Ok(chunk));
                }
                match feed.end {
                    None => {}
                    Some(End::Over) => return None,
                    Some(End::Broken) => return Some(Err(Broken)),
                }
            }
            if self.news.changed().await.is_err() {
                return Some(Err(Broken));
            }
        }
    }

    /// All that is to be read, as a body; of somebody who follows, or of the leader.
    pub(super) fn body(self, follows: bool) -> Body {
        let next = move |(mut reader, broken): (Self, bool)| async move {
            if broken {
                return None;
            }
            let next = reader.next().await?;
            let broken = next.is_err();
            let next = next.map(|bytes| if follows { plain::without_cost(bytes) } else { bytes });
            Some((next, (reader, broken)))
        };
        Body::from_stream(stream::unfold((self, false), next))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.flight.feed().readers.remove(&self.number);
        self.flight.read.notify_waiters();
    }
}

/// The answer's connection broke.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
struct Broken;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Settings;
    use super::*;

    fn cache() -> Arc<Cache> {
        let (ttl, bytes_max) = (Duration::from_secs(60), 1 << 20);
        let settings = Settings { ttl, bytes_max, any: false, shared: None };
        Arc::new(Cache::new(settings, None, crate::metrics::Metrics::new().cache()))
    }

    fn leads(cache: &Cache, key: Key) -> Lead {
        match cache.flights.join(key) {
            Joined::Leads(lead) => lead,
            Joined::Follows(_) => panic!("somebody else leads"),
        }
    }

    fn follows(cache: &Cache, key: Key) -> Reader {
        match cache.flights.join(key) {
            Joined::Follows(reader) => reader,
            Joined::Leads(_) => panic!("nobody leads"),
        }
    }

    /// Whoever joined would have had an answer that was cut where somebody else's money ended.
    #[tokio::test]
    async fn one_with_a_notice_is_the_leaders_alone() {
        let (cache, key) = (cache(), Key([2; 32]));
        let first = leads(&cache, key);
        let mut waits = follows(&cache, key);
        let cut = async {
            let mut response = Response::new(Body::from("cut"));
            bill::notice_header(response.headers_mut(), bill::USED_UP);
            Ok(response)
        };
        let answer = lead(&cache, first, cut).await.expect("an answer").into_body();
        assert_eq!(answer.collect().await.expect("whole").to_bytes(), "cut");
        assert!(waits.head().await.is_none(), "whoever waits asks for one of its own");
        assert!(cache.remembered(key).is_none());
    }

    #[tokio::test]
    async fn one_that_comes_to_nothing_leaves_its_place_to_the_next() {
        let (cache, key) = (cache(), Key([1; 32]));
        let first = leads(&cache, key);
        let mut waits = follows(&cache, key);
        let fails = async { Err(Failure::new(ErrorKind::Overloaded, "overloaded", "full")) };
        let failed = lead(&cache, first, fails).await.expect_err("it fails");
        assert_eq!(failed.error.kind, ErrorKind::Overloaded);
        assert!(waits.head().await.is_none(), "whoever waits hears of it");
        // The next one goes away while it is asked for.
        let second = leads(&cache, key);
        let mut waits = follows(&cache, key);
        let led = tokio::time::timeout(
            Duration::from_millis(10),
            lead(&cache, second, std::future::pending()),
        );
        drop(follows(&cache, key));
        assert!(led.await.is_err(), "it takes for ever");
        // Somebody waits still, so it goes on; then nobody does.
        let told = tokio::time::timeout(Duration::from_millis(10), waits.head());
        assert!(told.await.is_err());
        drop(waits);
        while matches!(cache.flights.join(key), Joined::Follows(_)) {
            tokio::task::yield_now().await;
        }
        // The third answers, and from then on it is here.
        let third = leads(&cache, key);
        let reader = follows(&cache, key);
        let answer = lead(&cache, third, async { Ok(Response::new(Body::from("well"))) });
        let answer = answer.await.expect("an answer").into_body();
        for body in [answer, reader.body(true)] {
            assert_eq!(body.collect().await.expect("whole").to_bytes(), "well");
        }
        assert_eq!(cache.remembered(key).expect("an entry").body, "well");
    }
}
