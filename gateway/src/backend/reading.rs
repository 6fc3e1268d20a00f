//! A request as its reader holds it, whichever engine makes its tokens: its events on their way,
//! measured as they are taken, and what the reader wishes of whoever makes them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scheduler::types::{Event, Finish};
use tokio::sync::mpsc;

use crate::metrics::RequestTimer;

/// The events of a request.
pub(crate) struct Reading {
    events: mpsc::Receiver<Event>,
    timer: RequestTimer,
    first_finish: Option<Finish>,
    ended: bool,
}

impl Reading {
    pub(crate) fn new(events: mpsc::Receiver<Event>, timer: RequestTimer) -> Self {
        Self { events, timer, first_finish: None, ended: false }
    }

    /// The next event; `None` behind the last. `lost` is the last word of a maker that went away
    /// without one.
    pub(crate) async fn next(&mut self, lost: impl FnOnce() -> Event) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await.unwrap_or_else(lost);
        self.observe(&event);
        Some(event)
    }

    /// As [`Reading::next`], of what is there already.
    pub(crate) fn try_next(&mut self, lost: impl FnOnce() -> Event) -> Option<Event> {
        let event = match self.events.try_recv() {
            Ok(event) => event,
            Err(mpsc::error::TryRecvError::Disconnected) if !self.ended => lost(),
            Err(_) => return None,
        };
        self.observe(&event);
        Some(event)
    }

    /// Its last event was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
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

/// What a request's reader wishes: that it ends, or that some of its choices do. Flags, which
/// cannot be lost to a full channel, take no memory, and may be set twice.
pub(crate) struct Wishes {
    cancelled: AtomicBool,
    /// One bit per choice.
    choices: Box<[AtomicU64]>,
}

impl Wishes {
    pub(crate) fn new(choices: u32) -> Self {
        // A number of choices beyond all reason is refused by whoever makes them; here it must
        // only not take memory.
        let words = choices.min(1 << 12).div_ceil(64);
        let choices = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { cancelled: AtomicBool::new(false), choices }
    }

    /// Nobody wants it any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Nobody wants this choice any more; `false`: there is none of this number.
    pub(crate) fn cancel_choice(&self, choice: u32) -> bool {
        self.word(choice).map(|word| word.fetch_or(1 << (choice % 64), Ordering::SeqCst)).is_some()
    }

    pub(crate) fn cancels(&self, choice: u32) -> bool {
        self.word(choice).is_some_and(|word| word.load(Ordering::SeqCst) >> (choice % 64) & 1 == 1)
    }

    /// Takes the choices that nobody wants any more, each once.
    pub(crate) fn take_choices(&self, mut each: impl FnMut(u32)) {
        for (word, bits) in (0_u32..).zip(&self.choices) {
            let mut bits = bits.swap(0, Ordering::SeqCst);
            while bits != 0 {
                each(word * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }

    fn word(&self, choice: u32) -> Option<&AtomicU64> {
        usize::try_from(choice / 64).ok().and_then(|word| self.choices.get(word))
    }
}
