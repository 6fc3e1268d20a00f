//! Who does a model's work: an engine in this process, or nodes of the cluster. Both answer to the
//! same words, so that nobody above has to know which it is.

use std::sync::Arc;
use std::time::Duration;

use scheduler::Stats;
use scheduler::types::{Event, Request};

use super::local::{EngineState, LocalEngine, LocalGeneration};
use super::{Along, SubmitError};
use crate::cluster::{Carried, ClusterEngine};
use crate::metrics::ModelMetrics;

/// What may be asked of whoever serves a model.
pub trait Serving {
    /// It is worth a place in the list of models.
    fn is_offered(&self) -> bool;

    /// Whether it takes requests.
    fn state(&self) -> EngineState;

    /// Ready when it takes requests. Where whoever served it went a moment ago, somebody may be
    /// back soon: then, or when that moment is over.
    fn back(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// How long a new request would wait, by what the last ones took.
    fn wait(&self) -> Duration;

    /// Seconds after which what waits now will have been served.
    fn retry_after_s(&self) -> u64;

    /// Requests taken in and not yet ended.
    fn open(&self) -> usize;

    /// Refuses new requests, lets the open ones end within `limit`, ends what is left. `true`:
    /// every request came to its own end.
    fn drain(&self, limit: Duration) -> impl Future<Output = bool> + Send;
}

/// See the module.
#[derive(Clone)]
pub enum Source<L, C> {
    /// In this process.
    Local(L),
    /// On other machines.
    Cluster(C),
}

/// What makes a model's tokens.
pub type Engine = Source<LocalEngine, ClusterEngine>;

/// A request that one of them has.
pub(crate) type Running = Source<LocalGeneration, Carried>;

impl From<LocalEngine> for Engine {
    fn from(engine: LocalEngine) -> Self {
        Self::Local(engine)
    }
}

impl From<ClusterEngine> for Engine {
    fn from(engine: ClusterEngine) -> Self {
        Self::Cluster(engine)
    }
}

/// The same call of whichever it is.
macro_rules! either {
    ($self:ident, $source:ident => $call:expr) => {
        match $self {
            Self::Local($source) => $call,
            Self::Cluster($source) => $call,
        }
    };
}

impl<L, C> Source<L, C> {
    /// The one in this process, where it is one.
    #[must_use]
    pub fn local(&self) -> Option<&L> {
        match self {
            Self::Local(local) => Some(local),
            Self::Cluster(_) => None,
        }
    }
}

impl<L: Serving, C: Serving> Source<L, C> {
    /// See [`Serving::is_offered`].
    #[must_use]
    pub fn is_offered(&self) -> bool {
        either!(self, source => source.is_offered())
    }

    /// See [`Serving::state`].
    #[must_use]
    pub fn state(&self) -> EngineState {
        either!(self, source => source.state())
    }

    /// See [`Serving::back`].
    pub(crate) async fn back(&self) {
        either!(self, source => source.back().await);
    }

    /// See [`Serving::wait`].
    #[must_use]
    pub fn wait(&self) -> Duration {
        either!(self, source => source.wait())
    }

    /// See [`Serving::retry_after_s`].
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        either!(self, source => source.retry_after_s())
    }

    /// See [`Serving::open`].
    #[must_use]
    pub fn open(&self) -> usize {
        either!(self, source => source.open())
    }

    /// See [`Serving::drain`].
    pub async fn drain(&self, limit: Duration) -> bool {
        either!(self, source => source.drain(limit).await)
    }
}

impl Engine {
    /// Hands a request over; its id is overwritten.
    ///
    /// # Errors
    /// It cannot be taken now.
    pub(crate) fn submit_with(
        &self,
        request: Request,
        along: Along,
    ) -> Result<Running, SubmitError> {
        Ok(match self {
            Self::Local(engine) => Running::Local(engine.submit_with(request, along)?),
            Self::Cluster(engine) => Running::Cluster(engine.submit_with(request, along)?),
        })
    }

    /// Sequences that wait where a new one would.
    #[must_use]
    pub fn waiting(&self) -> usize {
        match self {
            Self::Local(engine) => engine.stats().waiting,
            Self::Cluster(engine) => engine.waiting(),
        }
    }

    /// State after the last step; of all nodes together, as far as they tell.
    #[must_use]
    pub fn stats(&self) -> Stats {
        either!(self, engine => engine.stats())
    }

    /// The model's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        either!(self, engine => engine.metrics())
    }
}

impl Running {
    pub(crate) async fn next(&mut self) -> Option<Event> {
        either!(self, running => running.next().await)
    }

    pub(crate) fn try_next(&mut self) -> Option<Event> {
        either!(self, running => running.try_next())
    }

    pub(crate) fn cancel_choice(&self, choice: u32) {
        either!(self, running => running.cancel_choice(choice));
    }

    /// The node that it was sent to, and why.
    pub(crate) fn route(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Cluster(running) => Some(running.route()),
        }
    }
}
