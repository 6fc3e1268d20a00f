//! Models that make one vector of each text, or one score of each pair: a plain thread owns the
//! model and the device; [`LocalEmbedder`] is the handle that the rest of the gateway holds.
//!
//! Nothing is waited for: whenever a step ends, the next takes what lies in the queue, one input
//! of each request in turn, up to what a step computes. So a request of thousands of texts shares
//! its steps with whoever comes after it. What computes is behind [`Embed`]; this file knows
//! neither models nor devices.

mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, TrySendError, bounded};
use scheduler::types::{Fault, Refusal, Usage};
use tokio::sync::oneshot;

use super::life::{self, EngineState, Life, NUDGES};
use super::{Serving, SubmitError};
use crate::metrics::{ModelMetrics, RequestTimer};
use thread::{Driver, Work};

/// Tokens that wait at once, over all requests: 32 MiB of ids and types.
const TOKENS_MAX: usize = 4 << 20;

/// One sequence to compute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// Token ids, at least one.
    pub ids: Vec<u32>,
    /// Token types: as many, or none where all are 0.
    pub types: Vec<u32>,
    /// So many of the first tokens are read but left out of the vector.
    pub skip: usize,
}

/// What the thread drives: a model on a device.
pub trait Embed: Send + 'static {
    /// Tokens that are computed well in one call.
    fn step_tokens(&self) -> usize;

    /// The vectors of some inputs, in their order; scores are vectors of one number. A result
    /// does not depend on what else is in the call.
    ///
    /// # Errors
    /// The device failed; the results are lost.
    fn embed(&mut self, inputs: &[&Input]) -> Result<Vec<Vec<f32>>, Fault>;
}

/// What the handle needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model's name: the thread's name and the word in logs.
    pub name: String,
    /// Requests taken in at once; more are told to come back later.
    pub queue_max: usize,
    /// A request that has not ended after this time is ended with `Refusal::Deadline`.
    pub request_timeout: Option<Duration>,
    /// A device that takes longer for one step hangs: its requests end with `Refusal::Engine`, and
    /// it gets none while it does. `None`: nobody looks.
    pub step_timeout: Option<Duration>,
}

/// Handle to a model's thread. Clones are cheap and all mean the same thread, which ends when the
/// last of them and the last open request are gone.
#[derive(Clone)]
pub struct LocalEmbedder {
    shared: Arc<Shared>,
    commands: Sender<Message>,
}

/// What the handles and the thread both see.
struct Shared {
    options: Options,
    metrics: Arc<ModelMetrics>,
    life: Life,
    /// Requests taken in and not yet ended.
    open: AtomicUsize,
    /// Of these, the ones of which something is computed.
    running: AtomicUsize,
    /// Their tokens that are not computed yet.
    tokens: AtomicUsize,
    /// Time per token, smoothed, in nanoseconds; 0 while unknown.
    ns_per_token: AtomicU64,
}

/// What goes down the command channel.
enum Message {
    Submit(Work),
    /// Look at the flags.
    Nudge,
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// One per input, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub tokens: u64,
    /// From its first step to its end, microseconds.
    pub compute_us: u64,
    /// Before its first step, microseconds.
    pub queue_us: u64,
}

/// What a model has to do, for those who choose between several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    /// Requests taken in and not yet ended.
    pub open: usize,
    /// Requests that are taken in at once.
    pub open_max: usize,
    /// Of those open, the ones of which something is computed.
    pub running: usize,
    /// Tokens that are not computed yet.
    pub tokens: usize,
    /// Time per token, smoothed; 0 while unknown.
    pub ns_per_token: u64,
}

/// A request in the thread's hands. Dropping it cancels the request: none of its inputs is
/// computed from the next step on.
pub struct Pooling {
    answer: oneshot::Receiver<Answer>,
    timer: RequestTimer,
    tokens: u64,
    engine: LocalEmbedder,
}

/// What the thread sends back: vectors, with the time waited and computed, or why not.
type Answer = Result<(Vec<Vec<f32>>, Took), Refusal>;

/// Microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    queue_us: u64,
    compute_us: u64,
}

impl LocalEmbedder {
    /// Starts the thread, which owns `model` from now on.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        model: impl Embed,
        options: Options,
        metrics: Arc<ModelMetrics>,
    ) -> std::io::Result<Self> {
        let (commands, inbox) = bounded(options.queue_max + NUDGES);
        let (life, finish) = Life::new(&options.name, options.step_timeout);
        let shared = Arc::new(Shared {
            metrics,
            life,
            open: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
            ns_per_token: AtomicU64::new(0),
            options,
        });
        let name = format!("engine {}", shared.options.name);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name(name).spawn(move || {
            Driver::new(model, inbox, theirs).run_to_end();
            drop(finish);
        })?;
        life::watch(Arc::downgrade(&shared), |shared| &shared.life, |_| ())?;
        Ok(Self { shared, commands })
    }

    /// Hands inputs to the thread; latency and timeout count from `arrived`.
    ///
    /// # Errors
    /// The queue is full, or the model drains or is gone.
    pub fn submit(&self, inputs: Vec<Input>, arrived: Instant) -> Result<Pooling, SubmitError> {
        self.submit_until(inputs, arrived, None)
    }

    /// As [`LocalEmbedder::submit`]; it ends at `deadline` at the latest.
    pub(crate) fn submit_until(
        &self,
        inputs: Vec<Input>,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<Pooling, SubmitError> {
        let tokens: usize = inputs.iter().map(|input| input.ids.len()).sum();
        self.admit(tokens)?;
        let (send, answer) = oneshot::channel();
        let own = self.shared.options.request_timeout.map(|limit| arrived + limit);
        let deadline = own.into_iter().chain(deadline).min();
        let message = Message::Submit(Work::new(inputs, tokens, send, deadline));
        if let Err(error) = self.commands.try_send(message) {
            self.shared.ended(tokens);
            return Err(match error {
                TrySendError::Full(_) => self.overloaded(),
                TrySendError::Disconnected(_) => self.unavailable(),
            });
        }
        let counted = u32::try_from(tokens).unwrap_or(u32::MAX);
        let timer = RequestTimer::start(Arc::clone(&self.shared.metrics), counted, arrived);
        let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
        Ok(Pooling { answer, timer, tokens, engine: self.clone() })
    }

    /// Takes one of the places, which is given back when the request ends. A request alone may
    /// bring more tokens than wait otherwise: its own bounds were checked before.
    fn admit(&self, tokens: usize) -> Result<(), SubmitError> {
        let shared = &self.shared;
        if !shared.life.takes() {
            return Err(self.unavailable());
        }
        let most = shared.options.queue_max;
        let taken = shared.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
            (open < most).then_some(open + 1)
        });
        taken.map_err(|_| self.overloaded())?;
        let room = shared.tokens.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
            (waiting == 0 || waiting + tokens <= TOKENS_MAX).then_some(waiting + tokens)
        });
        room.map(drop).map_err(|_| {
            shared.open.fetch_sub(1, Ordering::SeqCst);
            self.overloaded()
        })
    }

    fn overloaded(&self) -> SubmitError {
        life::overloaded(&self.shared.metrics, self.retry_after_s())
    }

    fn unavailable(&self) -> SubmitError {
        self.shared.life.unavailable(&self.shared.metrics)
    }

    /// What it has to do.
    #[must_use]
    pub fn busy(&self) -> Busy {
        let Shared { options, open, running, tokens, ns_per_token, .. } = &*self.shared;
        Busy {
            open: open.load(Ordering::SeqCst),
            open_max: options.queue_max,
            running: running.load(Ordering::Relaxed),
            tokens: tokens.load(Ordering::SeqCst),
            ns_per_token: ns_per_token.load(Ordering::Relaxed),
        }
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

impl Serving for LocalEmbedder {
    fn is_offered(&self) -> bool {
        true
    }

    fn state(&self) -> EngineState {
        self.shared.life.state()
    }

    /// How long what waits now will take; zero while nothing is known.
    fn wait(&self) -> Duration {
        let waiting = u64::try_from(self.shared.tokens.load(Ordering::SeqCst)).unwrap_or(u64::MAX);
        let ns = self.shared.ns_per_token.load(Ordering::Relaxed);
        Duration::from_nanos(waiting.saturating_mul(ns))
    }

    /// Seconds after which what waits now will have been computed.
    fn retry_after_s(&self) -> u64 {
        let waiting = u64::try_from(self.shared.tokens.load(Ordering::SeqCst)).unwrap_or(u64::MAX);
        let ns = self.shared.ns_per_token.load(Ordering::Relaxed);
        life::retry_after_s(waiting, ns, 1_000_000_000)
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
    /// A request is gone with this many tokens that were not computed.
    fn ended(&self, tokens: usize) {
        self.tokens.fetch_sub(tokens, Ordering::SeqCst);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pooling {
    /// Waits for the vectors.
    ///
    /// # Errors
    /// The time was up, or the model's thread gave up.
    pub async fn result(mut self) -> Result<Vectors, Refusal> {
        let life = &self.engine.shared.life;
        let answer = tokio::select! {
            biased;
            answer = &mut self.answer => answer.ok(),
            () = life.hung() => None,
        };
        // The thread went away, or hangs, without a last word: this is it.
        let answer = answer.unwrap_or_else(|| Err(Refusal::Engine(life.why_stopped())));
        let prompt_tokens = u32::try_from(self.tokens).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens, ..Usage::default() };
        match answer {
            Ok((vectors, took)) => {
                let Took { queue_us, compute_us } = took;
                self.timer.end("stop", &Usage { queue_us, prefill_us: compute_us, ..usage });
                Ok(Vectors { vectors, tokens: self.tokens, compute_us, queue_us })
            }
            Err(refusal) => {
                self.timer.refused(&refusal, &usage);
                Err(refusal)
            }
        }
    }
}
