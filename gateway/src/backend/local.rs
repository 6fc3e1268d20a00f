//! The engine in this process: one plain thread owns the scheduler, the engine and the device;
//! [`LocalEngine`] is the handle that the rest of the gateway holds.
//!
//! Down goes one bounded channel of commands. Up goes one bounded channel per request whose
//! capacity is the exact upper bound of that request's events, so the device's thread never waits
//! for a slow reader and never drops an event.
//!
//! Cancels take no channel at all. Each request has [`Wishes`], atomic flags which its reader
//! sets and the thread reads before each step. So a cancel cannot be lost to a full channel, takes
//! no memory, and setting it twice is harmless. A `Message::Nudge` wakes a sleeping thread; if
//! there is no room for it, then the channel is not empty and the thread is not asleep.

mod adapter;
mod generation;
mod holds;
mod observed;
mod pages;
mod thread;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, TrySendError, bounded};
use engine::adapter::Adapter;
use engine::{AdapterBase, Compute, LoadError, Runner};
use scheduler::Stats;
use scheduler::types::{Engine, Event, Micros, Refusal, Request, RequestId, Usage};
use text::grammar::Grammar;
use tokio::sync::mpsc::{self, WeakSender};

pub use super::life::EngineState;
use super::life::{self, Life, NUDGES};
use super::meter::Metered;
use super::reading::{Reading, Wishes};
use super::{Along, Serving, SubmitError, events_max};
use crate::metrics::{ModelMetrics, RequestTimer};
pub use adapter::{AdapterFiles, AdapterRefused, Adapts};
pub use engine::spec::PrefixRule;
pub use generation::LocalGeneration;
pub use holds::Holds;
pub use pages::{PageNews, PageWatch};
use thread::Driver;

/// Request ids are unique in the process, over all models, so that a log line names one request.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What the handle needs to know beside the scheduler's own configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model's name: the thread's name and the word in logs.
    pub name: String,
    /// A request that has not ended after this time is ended with `Refusal::Deadline`.
    pub request_timeout: Option<Duration>,
    /// A device that takes longer for one step hangs: its requests end with `Refusal::Engine`, and
    /// it gets none while it does. `None`: nobody looks.
    pub step_timeout: Option<Duration>,
}

/// Handle to an engine's thread. Clones are cheap and all mean the same thread, which ends when
/// the last of them and the last open request are gone.
#[derive(Clone)]
pub struct LocalEngine {
    shared: Arc<Shared>,
    commands: Sender<Message>,
}

/// What the handles and the thread both see. No lock is held for longer than a copy.
struct Shared {
    options: Options,
    metrics: Arc<ModelMetrics>,
    /// Longest sequence in tokens.
    sequence_max: usize,
    /// Sequences computed at once.
    rows_max: usize,
    /// Requests taken in at once, running and waiting; more are told to come back later.
    open_max: usize,
    /// Zero of the scheduler's clock.
    epoch: Instant,
    life: Life,
    /// Some [`Wishes`] were set since the thread last looked.
    attention: AtomicBool,
    /// Requests taken in and not yet ended.
    open: AtomicUsize,
    /// Device time per ended request, smoothed, in microseconds; 0 while unknown.
    us_per_request: AtomicU64,
    stats: Mutex<Stats>,
    pages: pages::PageBook,
    /// Who reads the open requests, for when the thread can tell them nothing.
    readers: Mutex<HashMap<RequestId, Listening>>,
}

/// A reader, as whoever is not its engine's thread reaches it.
struct Listening {
    events: WeakSender<Event>,
    wishes: Arc<Wishes>,
}

/// What goes down the command channel.
enum Message {
    Submit(Box<Request>, Open, Option<Arc<Grammar>>),
    /// Look at the flags.
    Nudge,
    /// Between two steps.
    Adapter(adapter::Change),
}

/// The thread's side of a request.
struct Open {
    events: mpsc::Sender<Event>,
    wishes: Arc<Wishes>,
    meter: Option<Metered>,
}

impl LocalEngine {
    /// Starts the thread, which owns `engine` from now on.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        engine: impl Engine + Adapts + Holds + Send + 'static,
        mut config: scheduler::Config,
        options: Options,
        metrics: Arc<ModelMetrics>,
    ) -> std::io::Result<Self> {
        let open_max = config.waiting_max + config.rows_max;
        // Requests that come together all wait for a moment, those too that then get a row: what
        // the door let in, the scheduler must not refuse for want of a place in its line.
        config.waiting_max = open_max;
        let (commands, inbox) = bounded(open_max + NUDGES);
        let (life, finish) = Life::new(&options.name, options.step_timeout);
        let shared = Arc::new(Shared {
            metrics,
            sequence_max: config.sequence_max(),
            rows_max: config.rows_max,
            open_max,
            epoch: Instant::now(),
            life,
            attention: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            us_per_request: AtomicU64::new(0),
            stats: Mutex::default(),
            pages: pages::PageBook::default(),
            readers: Mutex::default(),
            options,
        });
        let name = format!("engine {}", shared.options.name);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name(name).spawn(move || {
            Driver::new(engine, config, inbox, theirs).run_to_end();
            drop(finish);
        })?;
        life::watch(Arc::downgrade(&shared), |shared| &shared.life, Shared::tell_hung)?;
        Ok(Self { shared, commands })
    }

    /// Hands a request to the thread; its id is overwritten, its allowance is its `max_tokens`.
    ///
    /// # Errors
    /// The engine is full, drains or is gone.
    pub fn submit(&self, request: Request) -> Result<LocalGeneration, SubmitError> {
        self.submit_with(request, Along::nothing())
    }

    /// As [`LocalEngine::submit`], with what comes along. Where somebody pays, its allowance is
    /// theirs.
    ///
    /// # Errors
    /// As [`LocalEngine::submit`].
    pub fn submit_with(
        &self,
        mut request: Request,
        along: Along,
    ) -> Result<LocalGeneration, SubmitError> {
        let Along { grammar, meter, arrived, .. } = along;
        self.admit()?;
        let id = RequestId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        request.id = id;
        request.grammar = if grammar.is_some() { id.0 } else { 0 };
        let paid = meter.as_ref().map_or(u32::MAX, |meter| meter.allowance());
        request.allowance = request.max_tokens.min(paid);
        if let (None, Some(limit)) = (request.deadline, self.shared.options.request_timeout) {
            request.deadline = Some(self.shared.micros(arrived + limit));
        }
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let (events, reader) = mpsc::channel(events_max(&request, self.shared.sequence_max));
        let wishes = Arc::new(Wishes::new(request.choices));
        let meter = meter.map(|meter| Metered::new(meter, &request.made));
        let open = Open { events, wishes: Arc::clone(&wishes), meter };
        let reached = Listening { events: open.events.downgrade(), wishes: Arc::clone(&wishes) };
        self.shared.readers().insert(id, reached);
        let message = Message::Submit(Box::new(request), open, grammar);
        if let Err(error) = self.commands.try_send(message) {
            self.shared.readers().remove(&id);
            self.shared.open.fetch_sub(1, Ordering::SeqCst);
            return Err(match error {
                TrySendError::Full(_) => self.overloaded(),
                TrySendError::Disconnected(_) => self.unavailable(),
            });
        }
        let metrics = Arc::clone(&self.shared.metrics);
        let timer = RequestTimer::start(metrics, prompt_tokens, arrived);
        let reading = Reading::new(reader, timer);
        Ok(LocalGeneration { id, reading, wishes, engine: self.clone() })
    }

    /// Takes one of the places, which the thread gives back when the request ends.
    fn admit(&self) -> Result<(), SubmitError> {
        if !self.shared.life.takes() {
            return Err(self.unavailable());
        }
        let most = self.shared.open_max;
        let taken = self.shared.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
            (open < most).then_some(open + 1)
        });
        taken.map(drop).map_err(|_| self.overloaded())
    }

    fn overloaded(&self) -> SubmitError {
        life::overloaded(&self.shared.metrics, self.retry_after_s())
    }

    fn unavailable(&self) -> SubmitError {
        self.shared.life.unavailable(&self.shared.metrics)
    }

    /// The scheduler's time now, for [`Request::deadline`].
    #[must_use]
    pub fn now(&self) -> Micros {
        self.shared.micros(Instant::now())
    }

    /// State after the last step.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequences that it computes at once, and requests that it takes in at once.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        (self.shared.rows_max, self.shared.open_max)
    }

    /// Device time of a request, as measured; 0 while unknown.
    #[must_use]
    pub fn us_per_request(&self) -> u64 {
        self.shared.us_per_request.load(Ordering::Relaxed)
    }

    /// The model's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.shared.metrics
    }

    /// Wakes the thread. No room means that it has something to read and wakes anyway.
    fn nudge(&self) {
        let _ = self.commands.try_send(Message::Nudge);
    }
}

impl Serving for LocalEngine {
    fn is_offered(&self) -> bool {
        true
    }

    fn state(&self) -> EngineState {
        self.shared.life.state()
    }

    /// How long a new request would wait in line, by what the last ones took.
    fn wait(&self) -> Duration {
        let waiting = u64::try_from(self.stats().waiting).unwrap_or(u64::MAX);
        let us = self.shared.us_per_request.load(Ordering::Relaxed);
        Duration::from_micros(waiting.saturating_mul(us))
    }

    /// Seconds after which the waiting line, as it is now, will have been served.
    fn retry_after_s(&self) -> u64 {
        let waiting = u64::try_from(self.stats().waiting.max(1)).unwrap_or(u64::MAX);
        let us = self.shared.us_per_request.load(Ordering::Relaxed);
        life::retry_after_s(waiting, us, 1_000_000)
    }

    fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Refuses new requests, lets the open ones end within `limit`, refuses what is left, and
    /// returns when the thread is gone. `true`: every request came to its own end.
    async fn drain(&self, limit: Duration) -> bool {
        self.shared.life.drain(limit, || self.nudge()).await
    }
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, HashMap<RequestId, Listening>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread hangs: whoever waits for it is told, and what is open is cancelled, should it
    /// ever go on. Whoever is told settles what was paid for.
    fn tell_hung(&self) {
        let why = self.life.why_stopped();
        let open: Vec<_> = self.readers().drain().collect();
        // Before anybody is told: whoever is may have the thread go on.
        open.iter().for_each(|(_, listening)| listening.wishes.cancel());
        self.attention.store(true, Ordering::SeqCst);
        for (id, Listening { events, .. }) in open {
            if let Some(events) = events.upgrade() {
                let refusal = Refusal::Engine(why.clone());
                let _ = events.try_send(Event::Refused(id, refusal, Usage::default()));
            }
        }
    }

    fn micros(&self, at: Instant) -> Micros {
        let since = at.saturating_duration_since(self.epoch).as_micros();
        Micros::try_from(since).unwrap_or(Micros::MAX)
    }
}

/// The request that an event is about, and whether it is the request's last one.
fn subject(event: &Event) -> (RequestId, bool) {
    match event {
        Event::PromptLogprobs(id, _) | Event::Token { id, .. } | Event::ChoiceEnd { id, .. } => {
            (*id, false)
        }
        Event::End(id, _) | Event::Refused(id, ..) => (*id, true),
    }
}
