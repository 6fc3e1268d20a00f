//! The life of a thread that owns a model: it takes requests, drains, and is gone, with the reason.
//!
//! Every kind of model has such a thread; what goes down to it and what comes back differ, this
//! does not. It knows no requests.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::SubmitError;
use crate::metrics::ModelMetrics;

/// Room for nudges in a command channel, beside the submissions, whose number is bounded.
pub(super) const NUDGES: usize = 16;
/// After a drain's deadline: how long the step in flight may take to end.
const LAST_STEP: Duration = Duration::from_secs(10);
/// Between two looks at what the thread is at.
const LOOK: Duration = Duration::from_secs(1);
/// Longest `Retry-After`: past a minute an estimate is worth nothing.
const RETRY_AFTER_MAX_S: u64 = 60;

/// Whether a model takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// It does.
    Ready,
    /// It finishes what it has.
    Draining,
    /// Its thread is gone, or hangs in a step; the text says so.
    Stopped(String),
}

/// Of a clock that others look at a second later.
const ORDER: Ordering = Ordering::Relaxed;

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
    /// Zero of `turn`.
    epoch: Instant,
    /// When the turn under way began, in milliseconds and one more; 0: it waits for work.
    turn: AtomicU64,
    /// Whoever is longer at one turn hangs.
    turn_max: Option<Duration>,
    hangs: watch::Sender<bool>,
}

impl Life {
    /// Of a thread that runs. The thread drops the other half when it has told all its requests.
    /// `turn_max`: a turn of its work that takes longer hangs.
    pub(super) fn new(name: &str, turn_max: Option<Duration>) -> (Self, watch::Sender<()>) {
        let (finish, finished) = watch::channel(());
        let life = Self {
            name: name.to_owned(),
            phase: AtomicU8::new(RUNNING),
            stop: AtomicBool::new(false),
            failure: OnceLock::new(),
            finished,
            epoch: Instant::now(),
            turn: AtomicU64::new(0),
            turn_max,
            hangs: watch::channel(false).0,
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

    /// The thread begins a turn of its work.
    pub(super) fn turns(&self) {
        let since = self.epoch.elapsed().as_millis();
        self.turn.store(u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1), ORDER);
    }

    /// The thread waits for work, for however long.
    pub(super) fn waits(&self) {
        self.turn.store(0, ORDER);
    }

    /// Looks how long the thread has been at its turn; `true`: it hangs.
    fn look(&self) -> bool {
        let (Some(most), began) = (self.turn_max, self.turn.load(ORDER)) else { return false };
        let took = self.epoch.elapsed().saturating_sub(Duration::from_millis(began));
        let hangs = began > 0 && took > most;
        let name = &self.name;
        if self.hangs.send_replace(hangs) != hangs {
            match hangs {
                true => tracing::error!(model = %name, "{}", self.why_hung()),
                false => tracing::warn!(model = %name, "the engine of {name} goes on"),
            }
        }
        hangs
    }

    /// It hangs in a step.
    pub(super) fn is_hung(&self) -> bool {
        *self.hangs.borrow()
    }

    /// Ready when it hangs in a step.
    pub(super) async fn hung(&self) {
        let mut hangs = self.hangs.subscribe();
        // The sender is ours, and lives as long as this does.
        let _ = hangs.wait_for(|hangs| *hangs).await;
    }

    fn why_hung(&self) -> String {
        let most = self.turn_max.unwrap_or_default();
        format!("the engine of {} hangs: a step has taken more than {most:?}", self.name)
    }

    /// New requests are taken.
    pub(super) fn takes(&self) -> bool {
        !self.drains() && !self.is_hung()
    }

    /// The thread is to leave when it has finished what it has.
    pub(super) fn drains(&self) -> bool {
        self.phase.load(Ordering::SeqCst) != RUNNING
    }

    /// The thread is to leave now, whatever is open.
    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn state(&self) -> EngineState {
        match self.phase.load(Ordering::SeqCst) {
            RUNNING if self.is_hung() => EngineState::Stopped(self.why_stopped()),
            RUNNING => EngineState::Ready,
            DRAINING => EngineState::Draining,
            _ => EngineState::Stopped(self.why_stopped()),
        }
    }

    /// The reason, for people.
    pub(super) fn why_stopped(&self) -> String {
        let why = || match (self.is_hung(), self.drains()) {
            (true, _) => self.why_hung(),
            (false, true) => "the server is shutting down".to_owned(),
            // It has gone on since.
            (false, false) => format!("the engine of {} did not answer in time", self.name),
        };
        self.failure.get().cloned().unwrap_or_else(why)
    }

    /// The answer to a request that comes now although nothing is taken.
    pub(super) fn unavailable(&self, metrics: &ModelMetrics) -> SubmitError {
        metrics.refused("unavailable");
        SubmitError::Unavailable(match self.state() {
            EngineState::Stopped(why) => why,
            EngineState::Ready | EngineState::Draining => self.why_stopped(),
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

/// Looks after a thread for as long as it lives. Whoever hangs in a driver's call cannot say so
/// himself: `hung` is called again and again while he does.
///
/// # Errors
/// The system has no thread left.
pub(super) fn watch<S: Send + Sync + 'static>(
    shared: Weak<S>,
    life: impl Fn(&S) -> &Life + Send + 'static,
    hung: impl Fn(&S) + Send + 'static,
) -> std::io::Result<()> {
    let Some(first) = shared.upgrade() else { return Ok(()) };
    let Some(most) = life(&first).turn_max else { return Ok(()) };
    drop(first);
    let look = LOOK.min(most / 4);
    let watches = move || {
        loop {
            std::thread::sleep(look);
            let Some(shared) = shared.upgrade() else { return };
            let life = life(&shared);
            if life.phase.load(Ordering::SeqCst) == STOPPED {
                return;
            }
            if life.look() {
                hung(&shared);
            }
        }
    };
    std::thread::Builder::new().name("engine watch".to_owned()).spawn(watches).map(drop)
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
