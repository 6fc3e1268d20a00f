//! A request while it lives: what its choices share, and how it comes to its one end.
//!
//! `End` and `Refused` promise that nothing is held any more, so they are sent when the last
//! choice has given its pages back, a step after its last token when a row was in flight.

use crate::core::Core;
use crate::sequence::{NONE, State};
use crate::types::{Event, Finish, Micros, Refusal, Request, Sampling, Usage};

/// See the module.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) request: Box<Request>,
    /// Its sequences by choice; `NONE` when gone.
    pub(crate) choices: Vec<u32>,
    /// Choices not gone.
    pub(crate) parts: u32,
    /// Choices that wait for the leader's prompt.
    pub(crate) held: u32,
    /// How it ends, when not well.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) usage: Usage,
    pub(crate) arrived: Micros,
    pub(crate) first_run: Option<Micros>,
    pub(crate) first_token: Option<Micros>,
    /// The next position whose log-probabilities are to be reported. The prompt's length when
    /// none are wanted or all were reported.
    pub(crate) logprobs_next: u32,
}

/// The seed that a choice draws with. The first choice has the request's own, so that asking for
/// more choices does not change it.
#[must_use]
pub fn choice_seed(seed: u64, choice: u32) -> u64 {
    let mut mixed = u64::from(choice).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ mixed ^ (mixed >> 31)
}

/// How a choice draws: as the request says, from a stream of its own.
pub(crate) fn sampling_of(request: &Request, choice: u32) -> Sampling {
    let seed = choice_seed(request.sampling.seed, choice);
    Sampling { seed, ..request.sampling.clone() }
}

impl Core {
    /// A choice is over. What it holds goes when no step in flight writes to it.
    pub(crate) fn end_choice(&mut self, number: u32, reason: Finish, out: &mut Vec<Event>) {
        let seq = &mut self.sequences[number];
        assert!(!seq.ended, "a choice ends once");
        seq.ended = true;
        out.push(Event::ChoiceEnd { id: seq.id, choice: seq.choice, reason });
        self.hand_over(number);
        self.release(number, out);
    }

    /// Ends a whole request early. Nothing more is reported of its choices.
    pub(crate) fn refuse(&mut self, request: u32, refusal: Refusal, out: &mut Vec<Event>) {
        let live = &mut self.requests[request];
        if live.refusal.is_some() {
            return;
        }
        live.refusal = Some(refusal);
        self.for_choices(request, |core, number| {
            if !core.sequences[number].ended {
                core.sequences[number].ended = true;
                core.release(number, out);
            }
        });
    }

    /// Ends all choices that have not ended.
    pub(crate) fn cancel(&mut self, request: u32, out: &mut Vec<Event>) {
        self.for_choices(request, |core, number| {
            if !core.sequences[number].ended {
                core.end_choice(number, Finish::Cancelled, out);
            }
        });
    }

    /// Calls `act` for each choice that is not gone; it may make them, and the request, go.
    pub(crate) fn for_choices(&mut self, request: u32, mut act: impl FnMut(&mut Self, u32)) {
        for choice in 0..self.requests[request].choices.len() {
            let Some(live) = self.requests.get(request) else { return };
            let number = live.choices[choice];
            if number != NONE {
                act(self, number);
            }
        }
    }

    /// The prompt of `number` is computed or never will be: the siblings that waited for it go
    /// on, all of them, or one of them as the new leader.
    pub(crate) fn hand_over(&mut self, number: u32) {
        let seq = &mut self.sequences[number];
        if !std::mem::take(&mut seq.leads) {
            return;
        }
        let (request, done) = (seq.request, seq.settled >= seq.prompt_len);
        let top = seq.prompt_logprobs.take();
        let mut leader_found = false;
        self.for_choices(request, |core, sibling| {
            let seq = &mut core.sequences[sibling];
            if seq.state != State::Held || leader_found {
                return;
            }
            core.requests[request].held -= 1;
            seq.state = State::Waiting;
            core.wait_in_line(sibling);
            let seq = &mut core.sequences[sibling];
            if !done {
                leader_found = true;
                seq.leads = core.requests[request].held > 0;
                seq.prompt_logprobs = top;
            }
        });
    }

    /// Gives back what an ended sequence holds, unless a step in flight still writes to it.
    pub(crate) fn release(&mut self, number: u32, out: &mut Vec<Event>) {
        let seq = &self.sequences[number];
        assert!(seq.ended, "only what has ended is released");
        if seq.flights > 0 {
            return;
        }
        match seq.state {
            State::Running => self.vacate(number),
            State::Waiting => self.line.remove(seq.account, seq.order),
            State::Held => self.requests[seq.request].held -= 1,
        }
        let seq = self.sequences.remove(number);
        self.suspects -= usize::from(seq.suspect);
        self.line.leave(seq.account);
        let live = &mut self.requests[seq.request];
        live.usage.completion_tokens += seq.made();
        live.choices[seq.choice as usize] = NONE;
        live.parts -= 1;
        if live.parts == 0 {
            self.finish(seq.request, out);
        }
    }

    /// Reports a request's end.
    pub(crate) fn finish(&mut self, request: u32, out: &mut Vec<Event>) {
        let live = self.requests.remove(request);
        let id = live.request.id;
        self.by_id.remove(&id);
        if let Some(deadline) = live.request.deadline {
            self.deadlines.remove(&(deadline, request));
        }
        let now = self.now;
        let mut usage = live.usage;
        let first_run = live.first_run.unwrap_or(now);
        let first_token = live.first_token.unwrap_or(now);
        usage.queue_us = first_run.saturating_sub(live.arrived);
        usage.prefill_us = first_token.saturating_sub(first_run);
        usage.decode_us = now.saturating_sub(first_token);
        out.push(match live.refusal {
            None => Event::End(id, usage),
            Some(refusal) => Event::Refused(id, refusal, usage),
        });
    }
}
