//! What serves a model: the engine in this process, or nodes of the cluster. Handlers see only the
//! types of this file; that a thread, a scheduler and a device stand behind them is `local`'s
//! affair, and that other machines do is `crate::cluster`'s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduler::types::{Event, Request, Sampling};
use text::grammar::Grammar;

use crate::cluster::Seen;
use crate::digest;

pub mod adapters;
pub mod answering;
pub mod embed;
mod life;
pub mod local;
pub mod meter;
mod pool;
pub(crate) mod reading;
mod source;

pub use pool::{PoolModel, Reader, Reads, Task};
pub use source::{Engine, Serving, Source};

/// A model that this server offers.
pub struct Model {
    /// Its name in `/v1/models` and in requests.
    pub id: String,
    /// Seconds since 1970 when it was loaded.
    pub created: u64,
    /// Longest sequence (prompt and answer) in tokens.
    pub context: usize,
    /// Tokenizer and chat template.
    pub text: Arc<text::TextModel>,
    /// Sampling used where a request says nothing: the author's `generation_config.json`.
    pub defaults: Sampling,
    /// Upper bound of new tokens where a request says nothing; `None`: what the context allows.
    pub max_tokens_default: Option<u32>,
    /// Ids that end a sequence.
    pub eos: Vec<u32>,
    /// How its answers are held and read.
    pub answering: Arc<answering::Answering>,
    /// The engine.
    pub engine: Engine,
    /// Which prompts may share cached pages.
    pub prefix: local::PrefixRule,
    /// Adapters that may be loaded beside it; `None` where it takes none.
    pub adapters: Option<Arc<adapters::Adapters>>,
    /// The adapter that it is; `None` for a base model.
    pub adapter: Option<Arc<adapters::LoadedAdapter>>,
}

/// Why a request was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The command queue or the waiting line is full; try again after these seconds.
    #[error("the server is at its limit; retry in {retry_after_s} s")]
    Overloaded {
        /// For `Retry-After`.
        retry_after_s: u64,
    },
    /// The server drains or its engine is gone.
    #[error("the model is not available: {0}")]
    Unavailable(String),
}

/// What comes along with a request and is no business of the scheduler's.
pub struct Along {
    /// The grammar that its choices are held to.
    pub grammar: Option<Arc<Grammar>>,
    /// Who pays for it; `None`: nobody counts.
    pub meter: Option<Box<dyn meter::Meter>>,
    /// When it arrived: latency and timeout count from here, so that parsing and tokenizing are
    /// part of what is measured.
    pub arrived: Instant,
    /// Another node may be asked beside one that is late.
    pub hedge: Option<Hedge>,
}

/// When somebody else is asked beside the one that has a request and has said nothing yet.
pub struct Hedge {
    /// So long after it was asked.
    pub after: Duration,
    /// Whether one more may be asked now; asked once.
    pub may: Box<dyn FnOnce() -> bool + Send>,
}

impl Along {
    /// Nothing comes along with a request that arrives now.
    #[must_use]
    pub fn nothing() -> Self {
        Self { grammar: None, meter: None, arrived: Instant::now(), hedge: None }
    }
}

/// A request in the engine's hands. Dropping it cancels the request: its pages are free at the
/// next step.
pub struct Generation {
    inner: source::Running,
    /// The adapter stays on the device until its last request has ended.
    _adapter: Option<Arc<adapters::LoadedAdapter>>,
}

impl Generation {
    /// The next event; `None` after `Event::End` or `Event::Refused` was returned.
    pub async fn next(&mut self) -> Option<Event> {
        self.inner.next().await
    }

    /// An event that is there already, so that several tokens can go out in one write.
    pub fn try_next(&mut self) -> Option<Event> {
        self.inner.try_next()
    }

    /// Stops one choice (its text met a stop string); the others go on.
    pub fn cancel_choice(&self, choice: u32) {
        self.inner.cancel_choice(choice);
    }

    /// The node that it was sent to, and why; `None`: it is made here.
    pub(crate) fn route(&self) -> Option<&str> {
        self.inner.route()
    }
}

/// Most events that a request can cause: its prompt's log-probabilities one by one, each choice's
/// tokens and its end, and the request's own end.
pub(crate) fn events_max(request: &Request, sequence_max: usize) -> usize {
    let room = sequence_max.saturating_sub(request.prompt.len()).max(1);
    let tokens = usize::try_from(request.max_tokens).map_or(room, |most| most.min(room));
    let prompt = request.prompt_logprobs.map_or(0, |_| request.prompt.len());
    let choices = usize::try_from(request.choices).unwrap_or(usize::MAX);
    let all = choices.saturating_mul(tokens + 1).saturating_add(prompt).saturating_add(1);
    all.min(tokio::sync::Semaphore::MAX_PERMITS)
}

impl Model {
    /// Hands a request to the engine. `request.id` is overwritten with a fresh one.
    ///
    /// # Errors
    /// The engine cannot take it now.
    pub fn submit(&self, mut request: Request, along: Along) -> Result<Generation, SubmitError> {
        request.adapter = self.adapter.as_ref().map_or(0, |adapter| adapter.number());
        request.salt = self.salt(&request);
        let inner = self.engine.submit_with(request, along)?;
        Ok(Generation { inner, _adapter: self.adapter.clone() })
    }
}

impl Model {
    /// What a choice among nodes would see now, for this request or for one without a prompt;
    /// `None`: it is made here.
    pub(crate) fn nodes(&self, request: Option<&Request>) -> Option<Vec<Seen>> {
        let Source::Cluster(engine) = &self.engine else { return None };
        Some(match request {
            Some(request) => engine.nodes(&request.prompt, self.salt(request)),
            None => engine.nodes(&[], 0),
        })
    }

    /// What keeps a request's pages apart from those of others.
    fn salt(&self, request: &Request) -> u64 {
        let load = self.adapter.as_ref().map_or(0, |adapter| adapter.load());
        apart(request.salt, load, self.prefix.class(request.prompt.len()))
    }
}

/// The salt of requests whose pages may only be shared among themselves. The plain case keeps the
/// caller's salt; otherwise all three go through a digest, so that no caller's salt can meet it.
fn apart(salt: u64, load: u64, class: u64) -> u64 {
    if (load, class) == (0, 0) {
        return salt;
    }
    let parts = [salt, load, class].map(u64::to_le_bytes);
    digest::number(&[&parts[0], &parts[1], &parts[2]])
}
