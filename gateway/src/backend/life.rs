//! The life of a thread that owns a model: it takes requests, drains, and is gone, with the reason.
//!
//! Every kind of model has such a thread; what goes down to it and what comes back differ, this
//! does not. It knows no requests.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::SubmitError;
use crate::metrics::ModelMetrics;

/// Room for nudges in a command channel, beside the submissions, whose number is bounded.
pub(super) const NUDGES: usize = 16;
/// After a drain's deadline: how long the step in flight may take to end.
const LAST_STEP: Duration = Duration::from_secs(10);
/// Longest `Retry-After`: past a minute an estimate is worth nothing.
const RETRY_AFTER_MAX_S: u64 = 60;

/// Whether a model takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// It does.
    Ready,
    /// It finishes what it has.
    Draining,
    /// Its thread is gone; the text says why.
    Stopped(String),
}

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const STOPPED: u8 = 2;

/// What the thread and the handles to it both see.
pub(super) struct Life {
    /// The model's name.
    name: String,
    phase: AtomicU8,
    /// Leave now; open requests are refused.
    stop: AtomicBool,
    /// Why the thread is gone.
    failure: OnceLock<String>,
    finished: watch::Receiver<()>,
}

impl Life {
    /// Of a thread that runs. The thread drops the other half when it has told all its requests.
    pub(super) fn new(name: &str) -> (Self, watch::Sender<()>) {
        let (finish, finished) = watch::channel(());
        let life = Self {
            name: name.to_owned(),
            phase: AtomicU8::new(RUNNING),
            stop: AtomicBool::new(false),
            failure: OnceLock::new(),
            finished,
        };
        (life, finish)
    }

    /// The thread's work, until it is told to stop or nobody holds a handle. A panic below (a bug,
    /// a driver that aborts a call) ends this model only: the process lives. Afterwards whoever
    /// sees a closed channel finds the reason.
    pub(super) fn run(&self, work: impl FnOnce() -> Result<(), String>) {
        let ended = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(text_of(panic.as_ref()).to_owned()));
        let name = &self.name;
        if let Err(why) = ended {
            let why = format!("the engine of {name} stopped: {why}");
            tracing::error!(model = %name, "{why}; restart the server to serve it again");
            let _ = self.failure.set(why);
        } else {
            tracing::debug!(model = %name, "engine thread ends");
        }
        self.phase.store(STOPPED, Ordering::SeqCst);
    }

    /// New requests are taken.
    pub(super) fn takes(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == RUNNING
    }

    /// The thread is to leave now, whatever is open.
    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn state(&self) -> EngineState {
        match self.phase.load(Ordering::SeqCst) {
            RUNNING => EngineState::Ready,
            DRAINING => EngineState::Draining,
            _ => EngineState::Stopped(self.why_stopped()),
        }
    }

    /// The reason, for people.
    pub(super) fn why_stopped(&self) -> String {
        self.failure.get().cloned().unwrap_or_else(|| "the server is shutting down".to_owned())
    }

    /// The answer to a request that comes now although nothing is taken.
    pub(super) fn unavailable(&self, metrics: &ModelMetrics) -> SubmitError {
        metrics.refused("unavailable");
        SubmitError::Unavailable(match self.state() {
            EngineState::Stopped(why) => why,
            EngineState::Ready | EngineState::Draining => "the server is shutting down".to_owned(),
        })
    }

    /// Refuses new requests, lets the open ones end within `limit`, refuses what is left, and
    /// returns when the thread is gone. `true`: every request came to its own end. `nudge` wakes
    /// the thread.
    pub(super) async fn drain(&self, limit: Duration, nudge: impl Fn()) -> bool {
        let phase = &self.phase;
        let _ = phase.compare_exchange(RUNNING, DRAINING, Ordering::SeqCst, Ordering::SeqCst);
        nudge();
        let mut finished = self.finished.clone();
        // `changed` fails when the thread drops its end: that is the event waited for.
        if tokio::time::timeout(limit, finished.changed()).await.is_ok() {
            return true;
        }
        self.stop.store(true, Ordering::SeqCst);
        nudge();
        let _ = tokio::time::timeout(LAST_STEP, finished.changed()).await;
        false
    }
}

/// The answer to a request for which there is no room: what waits takes this long.
pub(super) fn overloaded(metrics: &ModelMetrics, retry_after_s: u64) -> SubmitError {
    metrics.refused("overloaded");
    SubmitError::Overloaded { retry_after_s }
}

/// Whole seconds for `Retry-After`.
pub(super) fn retry_after_s(waiting: u64, each: u64, per_second: u64) -> u64 {
    waiting.saturating_mul(each).div_ceil(per_second).clamp(1, RETRY_AFTER_MAX_S)
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}
