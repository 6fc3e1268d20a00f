//! Answers that are given again to the same request: from memory, from a server that several
//! gateways share, or from one that is under way.
//!
//! Same means the same project, label, bound on tokens and request, so nothing crosses from one
//! tenant or one label to another, and the same dialect, streamed or not. Whoever gets an answer
//! from here has been judged as if it were made for them; they pay nothing for it.

mod flight;
mod keeper;
mod key;
mod plain;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use govern::{Ask, Governor};
use serde::{Deserialize, Serialize};
use wire::{ApiError, ErrorKind};

use super::envelope::Caller;
use super::error::Failure;
use super::forward::Inbound;
use super::generate::{self, Question};
use super::surface::Surface;
use super::{App, bill, prepare, relay};
use crate::metrics::CacheMetrics;
use flight::{Flights, Joined, Reader};
use keeper::Keeper;

pub(super) use key::Key;

/// Said by a request of what it wants, and by its answer of what it got.
const HEADER: HeaderName = HeaderName::from_static("x-hearth-cache");

/// An entry takes no more than this part of the room.
const ENTRY_PART: usize = 16;

/// What is kept for how long.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an answer is given again.
    pub ttl: Duration,
    /// Bytes of all answers in memory.
    pub bytes_max: usize,
    /// Requests too whose answers are drawn by chance.
    pub any: bool,
    /// What several gateways share.
    pub shared: Option<govern::cache::Shared>,
}

/// Answers that may be given again.
pub(super) struct Cache {
    settings: Settings,
    keeper: Mutex<Keeper>,
    flights: Flights,
    /// Seals what is shared.
    governor: Option<Governor>,
    metrics: CacheMetrics,
}

/// What an answer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Hit,
    /// A hit that another gateway has left.
    Shared,
    Miss,
    Joined,
    Off,
}

impl Got {
    const fn name(self) -> &'static str {
        match self {
            Self::Hit | Self::Shared => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Off => "off",
        }
    }
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    /// An answer from here will do.
    reads: bool,
    /// Its answer may be given to others.
    stores: bool,
    /// Only an answer from here will do.
    only: bool,
}

impl Wish {
    /// By the words that HTTP has for it.
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut wish = Self { reads: true, stores: true, only: false };
        for value in headers.get_all(&HEADER) {
            let text = value.to_str().unwrap_or("?");
            for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                match word.to_ascii_lowercase().as_str() {
                    "no-cache" => wish.reads = false,
                    "no-store" => wish.stores = false,
                    "off" => (wish.reads, wish.stores) = (false, false),
                    "only-if-cached" => wish.only = true,
                    _ => return Err(wrong(word)),
                }
            }
        }
        if wish.only && !wish.reads {
            return Err(wrong("only-if-cached, no-cache"));
        }
        Ok(wish)
    }
}

fn wrong(word: &str) -> Failure {
    let short: String = word.chars().take(32).collect();
    let message = format!(
        "Invalid header '{HEADER}': '{short}'. It takes 'no-cache', 'no-store', 'off' or \
         'only-if-cached'."
    );
    ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(HEADER.as_str()).into()
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    head: Head,
    body: Bytes,
}

/// What of an answer's head is for everybody.
#[derive(Debug, Clone, Default, PartialEq)]
struct Head {
    headers: HeaderMap,
    made: Option<Made>,
}

/// Headers that belong to the answer and not to who asked.
const LASTING: [HeaderName; 4] =
    [CONTENT_TYPE, CACHE_CONTROL, HeaderName::from_static("x-accel-buffering"), relay::DROPPED];

impl Head {
    fn of(response: &Response) -> Self {
        let mut headers = HeaderMap::new();
        for name in LASTING {
            if let Some(value) = response.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Self { headers, made: response.extensions().get::<Made>().cloned() }
    }
}

/// Goes along with an answer: what it was made of, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The model that answered, as prices know it.
    pub(super) model: String,
    /// Tokens of the prompt, where they were counted.
    pub(super) prompt: Option<u64>,
}

/// Goes along with a stream, and is set when that comes to its natural end.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Cache {
    pub(super) fn new(
        settings: Settings,
        governor: Option<&Governor>,
        metrics: CacheMetrics,
    ) -> Self {
        let keeper = Mutex::new(Keeper::new(settings.bytes_max, settings.ttl));
        let flights = Flights::new(settings.bytes_max / ENTRY_PART);
        Self { settings, keeper, flights, governor: governor.cloned(), metrics }
    }

    fn remembered(&self, key: Key) -> Option<Entry> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let found = keeper.get(key, Instant::now());
        self.count(&keeper);
        found
    }

    fn remember(&self, key: Key, entry: Entry, left: Duration) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.put(key, entry, Instant::now(), left);
        self.count(&keeper);
    }

    /// While nobody else changes what there is.
    fn count(&self, keeper: &Keeper) {
        let (entries, bytes) = keeper.held();
        self.metrics.holds(entries, bytes);
    }

    /// What another gateway has left, and for how long still.
    async fn shared(&self, key: Key) -> Option<(Entry, Duration)> {
        let (shared, governor) = (self.settings.shared.as_ref()?, self.governor.as_ref()?);
        let name = key.to_string();
        let (sealed, left) = shared.get(&name).await?;
        let found = governor.unseal(&sealed, &place(&name)).and_then(|text| keeper::read(&text));
        if found.is_none() {
            tracing::warn!("an answer in the shared cache cannot be read");
        }
        Some((found?, left))
    }

    /// Says of an answer, to its reader and to whoever counts, what it got.
    fn marked(&self, mut response: Response, got: Got) -> Response {
        if response.status() == StatusCode::OK {
            response.headers_mut().insert(HEADER, HeaderValue::from_static(got.name()));
            let Self { metrics, .. } = self;
            let counter = match got {
                Got::Hit => &metrics.hit,
                Got::Shared => &metrics.shared,
                Got::Miss => &metrics.miss,
                Got::Joined => &metrics.joined,
                Got::Off => &metrics.off,
            };
            counter.inc();
        }
        response
    }

    /// Keeps an answer that is whole, here and for other gateways.
    fn keep(self: &Arc<Self>, key: Key, entry: Entry) {
        self.metrics.stored.inc();
        self.remember(key, entry.clone(), self.settings.ttl);
        if self.settings.shared.is_some() {
            let own = Arc::clone(self);
            // Nobody waits for it.
            tokio::spawn(async move { own.share(key, &entry).await });
        }
    }

    async fn share(&self, key: Key, entry: &Entry) {
        let (Some(shared), Some(governor)) = (&self.settings.shared, &self.governor) else {
            return;
        };
        let name = key.to_string();
        if let Some(sealed) = governor.seal(&keeper::written(entry), &place(&name)) {
            shared.put(&name, sealed, self.settings.ttl).await;
        }
    }
}

fn place(name: &str) -> String {
    format!("cache/{name}")
}

/// Answers a request, from here if that can be.
pub(super) async fn serve(
    app: &Arc<App>,
    cache: &Arc<Cache>,
    caller: Caller,
    question: Question,
) -> Result<Response, Failure> {
    let wish = Wish::of(&question.headers)?;
    // What cannot be read here is refused by whoever answers.
    let Question { surface, headers, body } = question.clone();
    let inbound = Inbound::new(surface, &headers, body).ok();
    let repeats = inbound.as_ref().filter(|inbound| key::repeats(inbound, cache.settings.any));
    let uses = wish.reads || wish.stores;
    let Some(inbound) = repeats.filter(|_| uses) else {
        if wish.only {
            return Err(not_here());
        }
        let answer = generate::answer(Arc::clone(app), caller, question).await?;
        return Ok(cache.marked(answer, Got::Off));
    };
    let ask = || Ask { input_tokens: 0, ..inbound.ask(None) };
    let (label, most) = bill::judged(app, &caller, ask)?;
    let key = match inbound.surface {
        // Thousands of texts come in one: read where that may take its time.
        Surface::Pooled(_) => {
            let (caller, inbound) = (caller.clone(), inbound.clone());
            let bytes = inbound.body.len();
            let work = move |_: &App| Ok(Key::of(&caller, &inbound, (label, most)));
            prepare::run(app, bytes, work).await?
        }
        _ => Key::of(&caller, inbound, (label, most)),
    };
    let visit = Visit { app, cache, caller, inbound, wish, key };
    visit.serve(question).await
}

/// A request that may be answered from here.
struct Visit<'a> {
    app: &'a Arc<App>,
    cache: &'a Arc<Cache>,
    caller: Caller,
    inbound: &'a Inbound,
    wish: Wish,
    key: Key,
}

impl Visit<'_> {
    async fn serve(self, question: Question) -> Result<Response, Failure> {
        let (app, cache, wish, key) = (self.app, self.cache, self.wish, self.key);
        if !wish.reads {
            return self.alone(question).await;
        }
        loop {
            if let Some(entry) = cache.remembered(key) {
                return self.given(entry, Got::Hit).await;
            }
            if wish.only {
                return match cache.shared(key).await {
                    Some((entry, _)) => self.given(entry, Got::Shared).await,
                    None => Err(not_here()),
                };
            }
            if !wish.stores {
                let answer = generate::answer(Arc::clone(app), self.caller, question).await?;
                return Ok(cache.marked(answer, Got::Miss));
            }
            match cache.flights.join(key) {
                Joined::Leads(lead) => {
                    // Another's answer may have ended since the first look. It was kept before it
                    // could not be joined any more, so it is here by now.
                    if let Some(entry) = cache.remembered(key) {
                        return self.given(entry, Got::Hit).await;
                    }
                    if let Some((entry, left)) = cache.shared(key).await {
                        cache.remember(key, entry.clone(), left);
                        return self.given(entry, Got::Shared).await;
                    }
                    let answer = generate::answer(Arc::clone(app), self.caller.clone(), question);
                    let answer = flight::lead(cache, lead, answer).await?;
                    return Ok(cache.marked(answer, Got::Miss));
                }
                Joined::Follows(mut reader) => {
                    // One that came to nothing leaves its place to one of those who waited.
                    if let Some(head) = reader.head().await {
                        return self.joined(head, reader).await;
                    }
                }
            }
        }
    }

    /// Answered anew, whatever is here; the answer may be given to others.
    async fn alone(self, question: Question) -> Result<Response, Failure> {
        let lead = self.cache.flights.lead_alone(self.key);
        let answer = generate::answer(Arc::clone(self.app), self.caller, question);
        let answer = flight::lead(self.cache, lead, answer).await?;
        Ok(self.cache.marked(answer, Got::Miss))
    }

    /// Judged as if it were made for them, booked as what it is.
    async fn head(&self, head: &Head) -> Result<Response, Failure> {
        let ask = self.inbound.ask(None);
        let made = head.made.as_ref();
        let input_tokens = made.and_then(|made| made.prompt).unwrap_or(ask.input_tokens);
        let answers = made.map(|made| made.model.clone()).filter(|model| *model != ask.model);
        let ask = Ask { input_tokens, answers, ..ask };
        let headers = bill::given_again(self.app, &self.caller, ask).await?;
        let mut response = Response::new(Body::empty());
        response.headers_mut().extend(head.headers.clone());
        response.headers_mut().extend(headers);
        Ok(response)
    }

    async fn given(&self, entry: Entry, got: Got) -> Result<Response, Failure> {
        let mut response = self.head(&entry.head).await?;
        *response.body_mut() = Body::from(entry.body);
        Ok(self.cache.marked(response, got))
    }

    async fn joined(&self, head: Head, reader: Reader) -> Result<Response, Failure> {
        let mut response = self.head(&head).await?;
        *response.body_mut() = reader.body(true);
        Ok(self.cache.marked(response, Got::Joined))
    }
}

/// As HTTP has it for `only-if-cached`.
fn not_here() -> Failure {
    let message = "No answer to this request is in the cache, and none is to be made.";
    Failure::new(ErrorKind::Deadline, "not_cached", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_header() {
        let check = |text: &str, expect: Option<(bool, bool, bool)>| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_str(text).expect("a value"));
            let found = Wish::of(&headers).ok();
            let found = found.map(|Wish { reads, stores, only }| (reads, stores, only));
            assert_eq!(found, expect, "{text}");
        };
        check("", Some((true, true, false)));
        check("no-cache", Some((false, true, false)));
        check("no-store", Some((true, false, false)));
        check("No-Cache, no-store", Some((false, false, false)));
        check("off", Some((false, false, false)));
        check("only-if-cached", Some((true, true, true)));
        check("only-if-cached, off", None);
        check("max-age=5", None);
    }
}
