//! Commands and deadlines: how requests come to life and how they are stopped from outside.
//! A command for a request that has ended meanwhile is no error: the two crossed on the way.

use crate::core::Core;
use crate::request::Live;
use crate::sequence::{NONE, Sequence, State};
use crate::types::{Command, Event, Finish, Made, Refusal, Request, RequestId, Token, Usage};

impl Core {
    pub(crate) fn obey(&mut self, command: Command, out: &mut Vec<Event>) {
        match command {
            Command::Submit(request) => self.submit(request, out),
            Command::Cancel(id) => {
                if let Some(&request) = self.by_id.get(&id) {
                    self.cancel(request, out);
                }
            }
            Command::CancelChoice(id, choice) => {
                if let Some(number) = self.choice(id, choice)
                    && !self.sequences[number].ended
                {
                    self.end_choice(number, Finish::Cancelled, out);
                }
            }
            Command::Extend(id, allowance) => {
                if let Some(&request) = self.by_id.get(&id) {
                    self.extend(request, allowance);
                }
            }
        }
    }

    /// Refuses all requests whose deadline has passed.
    pub(crate) fn expire(&mut self, out: &mut Vec<Event>) {
        while let Some(&(deadline, request)) = self.deadlines.first() {
            if deadline > self.now {
                break;
            }
            self.deadlines.remove(&(deadline, request));
            self.refuse(request, Refusal::Deadline, out);
        }
    }

    fn submit(&mut self, request: Box<Request>, out: &mut Vec<Event>) {
        assert!(!self.by_id.contains_key(&request.id), "{:?} is alive already", request.id);
        let usage = Usage {
            prompt_tokens: request.prompt.len() as u32,
            completion_tokens: request.made_tokens() as u32,
            ..Usage::default()
        };
        if let Err(refusal) = self.acceptable(&request) {
            out.push(Event::Refused(request.id, refusal, usage));
            return;
        }
        let prompt_len = request.prompt.len() as u32;
        let logprobs_next = if request.prompt_logprobs.is_some() { 1 } else { prompt_len };
        let live = Live {
            choices: Vec::with_capacity(request.choices as usize),
            parts: 0,
            held: 0,
            refusal: None,
            usage,
            arrived: self.now,
            first_run: None,
            first_token: None,
            logprobs_next,
            request,
        };
        let (id, deadline) = (live.request.id, live.request.deadline);
        let number = self.requests.insert(live);
        self.by_id.insert(id, number);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, number));
        }
        self.open_choices(number);
        self.end_complete(number, out);
    }

    /// Every reason to turn a request away at the door.
    fn acceptable(&self, request: &Request) -> Result<(), Refusal> {
        request.check()?;
        if let Some(why) = &self.dead {
            return Err(Refusal::Engine(why.clone()));
        }
        // A made token that fills the sequence to its end may have been its last.
        let needed = request.prompt.len() + request.made_longest().max(1);
        let limit = self.config.sequence_max();
        if needed > limit {
            return Err(Refusal::TooLong { needed, limit });
        }
        // Slots are given out after all commands are read, so a free one does not count as a wait.
        // Held choices wait too, but behind a leader that counts.
        if self.line.len() >= self.config.waiting_max + self.slots_free.len() {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// Makes the sequences of a request's choices. With a prefix cache the first computes the
    /// prompt and the others wait to share its pages; without one there is nothing to wait for.
    fn open_choices(&mut self, number: u32) {
        let live = &mut self.requests[number];
        let mut made = std::mem::take(&mut live.request.made);
        made.resize_with(live.request.choices as usize, Made::default);
        let open = made.iter().filter(|made| !made.ended).count() as u32;
        for (choice, made) in (0..).zip(made) {
            if made.ended {
                self.requests[number].choices.push(NONE);
                continue;
            }
            let live = &mut self.requests[number];
            let (leads, shares) = (live.parts == 0, open > 1 && self.config.prefix_cache);
            live.parts += 1;
            let held = !leads && shares;
            live.held += u32::from(held);
            let mut sequence = self.sequence(number, choice, made.tokens);
            sequence.state = if held { State::Held } else { State::Waiting };
            sequence.leads = leads && shares;
            let live = &mut self.requests[number];
            sequence.prompt_logprobs = live.request.prompt_logprobs.filter(|_| leads);
            let sequence = self.sequences.insert(sequence);
            live.choices.push(sequence);
            if !held {
                self.wait_in_line(sequence);
            }
        }
    }

    /// A choice's sequence behind the tokens that were made of it.
    fn sequence(&mut self, request: u32, choice: u32, made: Vec<Token>) -> Sequence {
        let live = &self.requests[request];
        let Request { id, priority, tenant, adapter, .. } = *live.request;
        let prompt_len = live.usage.prompt_tokens;
        let given_len = prompt_len + made.len() as u32;
        let tokens =
            if made.is_empty() { made } else { [&live.request.prompt[..], &made].concat() };
        let order = self.orders;
        self.orders += 1;
        Sequence {
            id,
            choice,
            request,
            order,
            priority,
            account: self.line.enter(priority, tenant),
            state: State::Waiting,
            ended: false,
            leaving: false,
            restart: false,
            told: false,
            suspect: false,
            leads: false,
            prompt_logprobs: None,
            slot: NONE,
            running_at: NONE,
            flights: 0,
            pending: 0,
            drafting: false,
            faults: 0,
            tokens,
            prompt_len,
            given_len,
            limit: length_limit(&live.request, prompt_len, self.config.sequence_max()),
            stop_from: prompt_len.saturating_add(live.request.min_tokens),
            adapter,
            stop_tokens: live.request.stop_tokens.as_slice().into(),
            computed: 0,
            settled: 0,
            table: Vec::new(),
            granted: 0,
            tip: None,
            registered: 0,
            lookup: None,
        }
    }

    /// Puts a sequence into the line. One that somebody reads already goes before new ones, as
    /// one that was preempted here.
    pub(crate) fn wait_in_line(&mut self, number: u32) {
        let seq = &self.sequences[number];
        if seq.resumes() {
            self.line.push_resumed(seq.account, seq.order, number);
        } else {
            self.line.push(seq.account, seq.order, number);
        }
    }

    /// Ends what is over with what was made of it elsewhere.
    fn end_complete(&mut self, request: u32, out: &mut Vec<Event>) {
        if self.requests[request].parts == 0 {
            self.finish(request, out);
            return;
        }
        self.for_choices(request, |core, number| {
            if let Some(reason) = core.natural_end(number) {
                core.end_choice(number, reason, out);
            }
        });
    }

    /// Raises an allowance. A choice that has ended stays ended.
    fn extend(&mut self, request: u32, allowance: u32) {
        let live = &mut self.requests[request];
        live.request.allowance = live.request.allowance.max(allowance);
        let prompt_len = live.usage.prompt_tokens;
        let limit = length_limit(&live.request, prompt_len, self.config.sequence_max());
        self.for_choices(request, |core, number| core.sequences[number].limit = limit);
    }

    fn choice(&self, id: RequestId, choice: u32) -> Option<u32> {
        let live = &self.requests[*self.by_id.get(&id)?];
        live.choices.get(choice as usize).copied().filter(|&number| number != NONE)
    }
}

/// The length at which a choice ends with `Length`.
fn length_limit(request: &Request, prompt_len: u32, sequence_max: usize) -> u32 {
    let made = request.max_tokens.min(request.allowance);
    prompt_len.saturating_add(made).min(sequence_max as u32)
}
