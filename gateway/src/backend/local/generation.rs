//! The reader's side of a request: takes its events, measures them, and cancels what is not read
//! to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use scheduler::types::{Event, Refusal, RequestId, Usage};

use super::LocalEngine;
use crate::backend::reading::{Reading, Wishes};

/// The reader's side of a request: see [`crate::backend::Generation`].
pub struct LocalGeneration {
    pub(super) id: RequestId,
    pub(super) reading: Reading,
    pub(super) wishes: Arc<Wishes>,
    pub(super) engine: LocalEngine,
}

impl LocalGeneration {
    /// The request's name in logs.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    pub(crate) async fn next(&mut self) -> Option<Event> {
        let Self { id, reading, engine, .. } = self;
        reading.next(|| broken_off(*id, engine)).await
    }

    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let Self { id, reading, engine, .. } = self;
        reading.try_next(|| broken_off(*id, engine))
    }

    pub(crate) fn cancel_choice(&self, choice: u32) {
        if self.wishes.cancel_choice(choice) {
            self.call();
        }
    }

    /// Stops it; what was used is told as its end.
    pub(crate) fn cancel(&self) {
        self.wishes.cancel();
        self.call();
    }

    /// Has the thread look at what is wished.
    fn call(&self) {
        self.engine.shared.attention.store(true, Ordering::SeqCst);
        self.engine.nudge();
    }
}

/// The thread went away without a last word: this is it.
fn broken_off(id: RequestId, engine: &LocalEngine) -> Event {
    Event::Refused(id, Refusal::Engine(engine.shared.life.why_stopped()), Usage::default())
}

impl Drop for LocalGeneration {
    fn drop(&mut self) {
        if !self.reading.has_ended() {
            self.cancel();
        }
    }
}
