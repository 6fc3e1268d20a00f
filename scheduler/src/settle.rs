//! What a collected step made: tokens reported, choices ended, full pages made findable, device
//! time charged to those who used it.
//!
//! Pages become findable here and not at launch. On the device a later step would see them
//! either way, since steps run in order; but a step that fails never wrote them, and by then other
//! sequences would already have built on it. A burst of equal prompts in one step computes
//! its prefix twice for this; duplicates live until they are freed.

use crate::core::{Core, Flight, FlightRow};
use crate::prefix::Tip;
use crate::types::{
    Event, Finish, Logprobs, PAGE_TOKENS, PromptLogprobs, Refusal, Sample, StepOutput, Token,
};

impl Core {
    /// Takes in what a step made.
    pub(crate) fn settle(&mut self, flight: Flight, made: &mut StepOutput, out: &mut Vec<Event>) {
        assert_eq!(flight.step, made.step, "steps are collected in the order of their launch");
        self.now = self.now.max(flight.launched_at + made.elapsed_us);
        self.cost.observe(&flight.load, made.elapsed_us);
        self.counters.steps += 1;
        self.counters.device_us += made.elapsed_us;
        self.charge(&flight, made.elapsed_us);
        for (slot, logprobs) in made.prompt_logprobs.drain(..) {
            self.report_prompt(slot, logprobs, out);
        }
        // Rows that failed have no sample; their requests end below, with their rows landed.
        let failed = std::mem::take(&mut made.failed);
        let mut samples = made.samples.drain(..).peekable();
        for row in &flight.rows {
            let slot = self.sequences[row.sequence].slot;
            if let Some((_, why)) = failed.iter().find(|(failed, _)| *failed == slot) {
                self.land_failed(row, why, out);
                continue;
            }
            let drawn = std::iter::from_fn(|| samples.next_if(|sample| sample.slot == slot));
            self.land(row, drawn.fuse(), out);
        }
        assert!(samples.next().is_none(), "more samples than rows that sample");
        drop(samples);
        self.spare.push(flight);
    }

    /// A row came back, with the tokens drawn for it.
    fn land(
        &mut self,
        row: &FlightRow,
        mut drawn: impl Iterator<Item = Sample>,
        out: &mut Vec<Event>,
    ) {
        let number = row.sequence;
        if self.sequences[number].suspect {
            self.trust(number);
        }
        let seq = &mut self.sequences[number];
        seq.flights -= 1;
        seq.pending -= u8::from(row.samples);
        seq.drafting &= row.drafts == 0;
        if seq.ended {
            drawn.for_each(drop);
            self.release(number, out);
            return;
        }
        seq.settled = row.first + row.len - row.drafts;
        self.register_full(number);
        let seq = &self.sequences[number];
        if seq.leads && seq.settled >= seq.prompt_len {
            self.hand_over(number);
        }
        self.look_up(number);
        let mut goes_on = true;
        if row.samples {
            let first = drawn.next().expect("a sample is missing");
            goes_on = self.take_token(number, first, out);
            self.counters.tokens_drafted += u64::from(row.drafts);
            for (accepted, sample) in (1..).zip(drawn) {
                assert!(goes_on && accepted <= row.drafts, "drawn behind an end or the drafts");
                goes_on = self.take_next(number, sample, out);
            }
        }
        if goes_on && self.sequences[number].leaving {
            self.leave(number);
        }
    }

    /// A token was drawn behind a draft that had been drawn: what was computed of that one counts.
    fn take_next(&mut self, number: u32, sample: Sample, out: &mut Vec<Event>) -> bool {
        let seq = &mut self.sequences[number];
        seq.computed += 1;
        seq.settled += 1;
        self.counters.tokens_accepted += 1;
        self.register_full(number);
        self.take_token(number, sample, out)
    }

    /// A token was drawn for a sequence. False: it was its last.
    fn take_token(&mut self, number: u32, sample: Sample, out: &mut Vec<Event>) -> bool {
        let Sample { slot, token, logprobs, forced } = sample;
        let seq = &mut self.sequences[number];
        assert_eq!(slot, seq.slot, "samples come in the order of rows");
        assert!(forced.is_empty() || seq.pending == 0, "tokens are forced before one is drawn");
        let mut goes_on = self.add_token(number, token, logprobs, out);
        for token in forced {
            goes_on = goes_on && self.add_token(number, token, None, out);
        }
        goes_on
    }

    /// A token joins a sequence. False: it was its last.
    fn add_token(
        &mut self,
        number: u32,
        token: Token,
        logprobs: Option<Box<Logprobs>>,
        out: &mut Vec<Event>,
    ) -> bool {
        let seq = &mut self.sequences[number];
        let len_before = seq.tokens.len() as u32;
        seq.tokens.push(token);
        seq.faults = 0;
        out.push(Event::Token { id: seq.id, choice: seq.choice, token, logprobs });
        if len_before == seq.given_len {
            let (request, now) = (seq.request, self.now);
            self.requests[request].first_token.get_or_insert(now);
        }
        let reason = self.natural_end(number);
        if let Some(reason) = reason {
            self.end_choice(number, reason, out);
        } else {
            self.look_up(number);
        }
        reason.is_none()
    }

    /// Why a sequence ends behind the tokens that it has made, if it does.
    pub(crate) fn natural_end(&self, number: u32) -> Option<Finish> {
        let seq = &self.sequences[number];
        let len = seq.tokens.len() as u32;
        if len <= seq.prompt_len {
            return None;
        }
        // Under a grammar a stop token comes early only when nothing else is left: it is complete.
        let held = self.requests[seq.request].request.grammar != 0;
        let counts = held || len > seq.stop_from;
        if counts && seq.tokens.last().is_some_and(|token| seq.stop_tokens.contains(token)) {
            return Some(Finish::Stop);
        }
        (len >= seq.limit).then_some(Finish::Length)
    }

    /// A preempted sequence goes back in line once no step in flight has a row of it.
    fn leave(&mut self, number: u32) {
        if self.sequences[number].flights == 0 {
            self.requeue(number);
        }
    }

    /// A row failed alone: its whole request is refused.
    fn land_failed(&mut self, row: &FlightRow, why: &str, out: &mut Vec<Event>) {
        let seq = &mut self.sequences[row.sequence];
        seq.flights -= 1;
        seq.pending -= u8::from(row.samples);
        seq.drafting &= row.drafts == 0;
        if seq.ended {
            self.release(row.sequence, out);
        } else {
            let request = seq.request;
            self.refuse(request, Refusal::Engine(why.to_owned()), out);
        }
    }

    /// Makes pages of a sequence findable that have become full.
    fn register_full(&mut self, number: u32) {
        let seq = &self.sequences[number];
        if seq.settled / PAGE_TOKENS as u32 > seq.registered && seq.tip.is_some() {
            self.register(number);
        }
    }

    /// Makes the full pages of a sequence findable, each behind the one before.
    fn register(&mut self, number: u32) {
        let seq = &mut self.sequences[number];
        let Some(mut tip) = seq.tip else { return };
        if !self.pages.alive(&tip) {
            // Its page was evicted or replaced, which happens where another sequence's copy was
            // the registered one. Walk the own pages again from the start.
            tip = Tip::root(self.requests[seq.request].request.salt);
            seq.registered = 0;
        }
        let full = seq.settled as usize / PAGE_TOKENS;
        let whole = &seq.tokens.as_chunks::<PAGE_TOKENS>().0[..full];
        for (tokens, page) in whole.iter().zip(&seq.table).skip(seq.registered as usize) {
            let Some(next) = self.pages.register(&tip, tokens, page) else {
                seq.tip = None;
                return;
            };
            tip = next;
        }
        seq.registered = full as u32;
        seq.tip = Some(tip);
    }

    /// Passes log-probabilities of a prompt on, each position once: a sequence that was preempted
    /// computes some of them again.
    fn report_prompt(&mut self, slot: u32, mut part: PromptLogprobs, out: &mut Vec<Event>) {
        let number = self.slots[slot as usize];
        let seq = &mut self.sequences[number];
        let live = &mut self.requests[seq.request];
        let (first, end) = (part.first, part.first + part.entries.len() as u32);
        if seq.ended || end <= live.logprobs_next {
            return;
        }
        assert!(first <= live.logprobs_next, "a stretch of the prompt was left out");
        part.entries.drain(..(live.logprobs_next - first) as usize);
        part.first = live.logprobs_next;
        live.logprobs_next = end;
        if end >= seq.prompt_len {
            seq.prompt_logprobs = None;
        }
        out.push(Event::PromptLogprobs(seq.id, part));
    }

    /// Shares a step's time among its rows by their tokens.
    fn charge(&mut self, flight: &Flight, elapsed_us: u64) {
        let total: u64 = flight.rows.iter().map(|row| u64::from(row.len)).sum();
        let per_token = elapsed_us.saturating_mul(1000) / total.max(1);
        for row in &flight.rows {
            let account = self.sequences[row.sequence].account;
            self.line.charge(account, per_token.saturating_mul(u64::from(row.len)));
            let known = row.len - row.drafts;
            let counter = match known {
                1 => &mut self.counters.tokens_decode,
                _ => &mut self.counters.tokens_prefill,
            };
            *counter += u64::from(known);
        }
    }
}
