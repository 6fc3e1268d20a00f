//! The reader's side of a request: takes its events, measures them, and cancels what is not read
//! to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use scheduler::types::{Event, Finish, Refusal, RequestId, Usage};
use tokio::sync::mpsc;

use super::{Control, LocalEngine};
use crate::metrics::RequestTimer;

/// The reader's side of a request: see [`crate::backend::Generation`].
pub struct LocalGeneration {
    pub(super) id: RequestId,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) control: Arc<Control>,
    pub(super) timer: RequestTimer,
    pub(super) first_finish: Option<Finish>,
    pub(super) ended: bool,
    pub(super) engine: LocalEngine,
}

impl LocalGeneration {
    /// The request's name in logs.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    pub(crate) async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = match self.events.recv().await {
            Some(event) => event,
            None => self.broken_off(),
        };
        self.observe(&event);
        Some(event)
    }

    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let event = match self.events.try_recv() {
            Ok(event) => event,
            Err(mpsc::error::TryRecvError::Disconnected) if !self.ended => self.broken_off(),
            Err(_) => return None,
        };
        self.observe(&event);
        Some(event)
    }

    pub(crate) fn cancel_choice(&self, choice: u32) {
        let word = usize::try_from(choice / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.control.choices.get(word) {
            word.fetch_or(1 << (choice % 64), Ordering::SeqCst);
            self.engine.shared.attention.store(true, Ordering::SeqCst);
            self.engine.nudge();
        }
    }

    /// The thread went away without a last word: this is it.
    fn broken_off(&self) -> Event {
        let why = Refusal::Engine(self.engine.shared.life.why_stopped());
        Event::Refused(self.id, why, Usage::default())
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::PromptLogprobs(..) => {}
            Event::Token { .. } => self.timer.token(1),
            Event::ChoiceEnd { reason, .. } => {
                self.first_finish.get_or_insert(*reason);
            }
            Event::End(_, usage) => {
                self.ended = true;
                let reason = match self.first_finish {
                    Some(Finish::Stop) => "stop",
                    Some(Finish::Length) => "length",
                    Some(Finish::Cancelled) | None => "cancelled",
                };
                self.timer.end(reason, usage);
            }
            Event::Refused(_, why, usage) => {
                self.ended = true;
                self.timer.refused(why, usage);
            }
        }
    }
}

impl Drop for LocalGeneration {
    fn drop(&mut self) {
        if !self.ended {
            self.control.cancelled.store(true, Ordering::SeqCst);
            self.engine.shared.attention.store(true, Ordering::SeqCst);
            self.engine.nudge();
        }
    }
}
