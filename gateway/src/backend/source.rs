//! What makes a model's tokens: the engine in this process, or nodes of the cluster. Both answer
//! to the same words, so that nobody above has to know which it is.

use std::sync::Arc;
use std::time::Duration;

use scheduler::Stats;
use scheduler::types::{Event, Request};

use super::local::{EngineState, LocalEngine, LocalGeneration};
use super::{Along, SubmitError};
use crate::cluster::{Carried, ClusterEngine};
use crate::metrics::ModelMetrics;

/// See the module.
#[derive(Clone)]
pub enum Engine {
    /// In this process.
    Local(LocalEngine),
    /// On other machines.
    Cluster(ClusterEngine),
}

/// A request that one of them has.
pub(crate) enum Running {
    Local(LocalGeneration),
    Cluster(Carried),
}

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
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Self::Local($engine) => $call,
            Self::Cluster($engine) => $call,
        }
    };
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

    /// The engine in this process, where it is one.
    #[must_use]
    pub fn local(&self) -> Option<&LocalEngine> {
        match self {
            Self::Local(engine) => Some(engine),
            Self::Cluster(_) => None,
        }
    }

    /// It is worth a place in the list of models.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Cluster(engine) => engine.is_offered(),
        }
    }

    /// Whether it takes requests.
    #[must_use]
    pub fn state(&self) -> EngineState {
        either!(self, engine => engine.state())
    }

    /// Seconds after which what waits now will have been served.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        either!(self, engine => engine.retry_after_s())
    }

    /// How long a new request would wait in line, by what the last ones took.
    #[must_use]
    pub fn wait(&self) -> Duration {
        either!(self, engine => engine.wait())
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

    /// Requests taken in and not yet ended.
    #[must_use]
    pub fn open(&self) -> usize {
        either!(self, engine => engine.open())
    }

    /// The model's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        either!(self, engine => engine.metrics())
    }

    /// Refuses new requests, lets the open ones end within `limit`, ends what is left. `true`:
    /// every request came to its own end.
    pub async fn drain(&self, limit: Duration) -> bool {
        either!(self, engine => engine.drain(limit).await)
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
