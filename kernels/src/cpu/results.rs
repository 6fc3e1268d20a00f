//! What steps drew, between their end and their collection. All lists are reused: a collected
//! [`Drawn`] trades places with the caller's last one.

use std::collections::VecDeque;

use crate::compute::{Drawn, Scored};

/// Ended steps that may wait for collection.
pub(crate) const STEPS_IN_FLIGHT: usize = 2;

/// Results of the current step and of those that were ended and not collected.
#[derive(Debug, Default)]
pub(crate) struct Results {
    current: Drawn,
    ended: VecDeque<Drawn>,
    spare: Vec<Drawn>,
    spare_scored: Vec<Scored>,
}

impl Results {
    /// The current step drew this.
    pub(crate) fn push_token(&mut self, slot: u32, token: Option<u32>) {
        self.current.tokens.push((slot, token));
    }

    /// Moves a report in, and leaves an old one in its place.
    pub(crate) fn take_scored(&mut self, scored: &mut Scored) {
        let old = self.spare_scored.pop().unwrap_or_default();
        self.current.logprobs.push(std::mem::replace(scored, old));
    }

    /// Ends the current step.
    pub(crate) fn end(&mut self, elapsed_us: u64) {
        assert!(self.ended.len() < STEPS_IN_FLIGHT, "more than two steps in flight");
        self.current.elapsed_us = elapsed_us;
        let next = self.spare.pop().unwrap_or_default();
        self.ended.push_back(std::mem::replace(&mut self.current, next));
    }

    /// Hands out the oldest ended step.
    pub(crate) fn collect(&mut self, out: &mut Drawn) {
        let oldest = self.ended.pop_front().expect("a step was ended");
        let mut old = std::mem::replace(out, oldest);
        old.tokens.clear();
        self.spare_scored.append(&mut old.logprobs);
        self.spare.push(old);
    }
}
