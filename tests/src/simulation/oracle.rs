//! What must be true of every stream of events, whatever happened below: the order of a
//! request's events, its one end, and each token equal to what the request makes when it runs
//! alone.

use std::collections::BTreeMap;

use scheduler::{
    Command, Config, Event, Finish, Made, Micros, Refusal, Request, RequestId, Token, Usage,
    choice_seed,
};

use super::engine::POISON;
use super::model;
use super::random::mix;

/// Salts from here on are used by one request only: there is nothing that it may share.
pub const OWN_SALT: u64 = 1000;

/// What is known of one choice.
#[derive(Debug, Clone)]
struct Choice {
    chain: u64,
    made: Vec<Token>,
    ended: Option<Finish>,
    /// Tokens that it came with.
    given: usize,
    /// It came ended.
    given_ended: bool,
}

impl Choice {
    /// As it came.
    fn given(prompt: u64, given: Made) -> Self {
        let Made { tokens, ended: given_ended } = given;
        let chain = tokens.iter().fold(prompt, |chain, &token| model::extend(chain, token));
        let ended = given_ended.then_some(Finish::Stop);
        Self { chain, given: tokens.len(), made: tokens, ended, given_ended }
    }

    /// Whether nothing was reported of it.
    fn is_fresh(&self) -> bool {
        self.made.len() == self.given && self.ended.is_some() == self.given_ended
    }
}

/// What is known of one request.
#[derive(Debug, Clone)]
struct Known {
    request: Request,
    choices: Vec<Choice>,
    /// Its allowance when it was sent.
    allowance_first: u32,
    cancelled: bool,
    choices_cancelled: Vec<u32>,
    /// Prompt positions reported so far.
    prompt_reported: u32,
    over: bool,
}

/// Checks events against the commands that were sent.
pub struct Oracle {
    config: Config,
    known: BTreeMap<RequestId, Known>,
    alive: usize,
    /// Whether the engine can fail on its own.
    pub engine_fails: bool,
    /// A number that stands for all events so far.
    pub hash: u64,
    /// Prompts and made tokens of requests that ended well: what a next turn begins with.
    pub finished: Vec<Vec<Token>>,
    /// Usage summed over requests that ended well.
    pub total: Usage,
    /// Ends by kind.
    pub ends: BTreeMap<&'static str, u64>,
}

type Check = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl Oracle {
    /// Nothing sent, nothing seen.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            known: BTreeMap::new(),
            alive: 0,
            engine_fails: false,
            hash: 0,
            finished: Vec::new(),
            total: Usage::default(),
            ends: BTreeMap::new(),
        }
    }

    /// Requests sent and not over.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.alive
    }

    /// Names of requests sent and not over.
    #[must_use]
    pub fn names(&self) -> Vec<RequestId> {
        self.known.iter().filter(|(_, k)| !k.over).map(|(&id, _)| id).collect()
    }

    /// The allowance of a request and the most it may ask for.
    #[must_use]
    pub fn allowance(&self, id: RequestId) -> (u32, u32) {
        let request = &self.known[&id].request;
        (request.allowance, request.max_tokens)
    }

    /// A command is about to be delivered.
    pub fn command(&mut self, command: &Command) {
        match command {
            Command::Submit(request) => {
                let chain = request.prompt.iter().fold(model::ROOT, |c, &t| model::extend(c, t));
                let given = |choice| request.made.get(choice).cloned().unwrap_or_default();
                // All that was made counts, where a request is refused for it too.
                let choices = 0..request.made.len().max(request.choices as usize);
                let known = Known {
                    choices: choices.map(|choice| Choice::given(chain, given(choice))).collect(),
                    request: (**request).clone(),
                    allowance_first: request.allowance,
                    cancelled: false,
                    choices_cancelled: Vec::new(),
                    prompt_reported: 0,
                    over: false,
                };
                self.known.insert(request.id, known);
                self.alive += 1;
            }
            Command::Cancel(id) => {
                if let Some(known) = self.known.get_mut(id) {
                    known.cancelled = true;
                }
            }
            Command::CancelChoice(id, choice) => {
                if let Some(known) = self.known.get_mut(id) {
                    known.choices_cancelled.push(*choice);
                }
            }
            Command::Extend(id, allowance) => {
                if let Some(known) = self.known.get_mut(id) {
                    known.request.allowance = known.request.allowance.max(*allowance);
                }
            }
        }
    }

    /// An event came.
    ///
    /// # Errors
    /// It must not have come, or not so.
    pub fn event(&mut self, event: &Event, now: Micros) -> Check {
        for byte in format!("{event:?}").bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = mix(self.hash, 7);
        let id = match event {
            Event::PromptLogprobs(id, _) | Event::End(id, _) | Event::Refused(id, ..) => *id,
            Event::Token { id, .. } | Event::ChoiceEnd { id, .. } => *id,
        };
        let sequence_max = self.config.sequence_max();
        let known = self.known.get_mut(&id).ok_or_else(|| format!("nobody sent {event:?}"))?;
        ensure(!known.over, || format!("after its end: {event:?}"))?;
        let checked = match event {
            Event::PromptLogprobs(_, part) => known.prompt(part.first, &part.entries),
            Event::Token { choice, token, logprobs, .. } => {
                known.token(*choice, *token, logprobs.as_deref())
            }
            Event::ChoiceEnd { choice, reason, .. } => {
                known.choice_end(*choice, *reason, sequence_max)
            }
            Event::End(_, usage) => known.end(usage),
            Event::Refused(_, refusal, usage) => {
                let fails = self.engine_fails;
                known.refused(refusal, usage, sequence_max, fails, now)
            }
        };
        checked.map_err(|what| format!("{what}: {event:?} of {known:?}"))?;
        if let Event::End(_, usage) | Event::Refused(_, _, usage) = event {
            known.over = true;
            self.alive -= 1;
            self.total.cached_tokens += usage.cached_tokens;
            self.total.completion_tokens += usage.completion_tokens;
            self.total.preemptions += usage.preemptions;
            let kind = match event {
                Event::Refused(_, Refusal::Overloaded, _) => "overloaded",
                Event::Refused(_, Refusal::Deadline, _) => "deadline",
                Event::Refused(_, Refusal::Engine(_), _) => "engine",
                Event::Refused(..) => "invalid",
                _ => "well",
            };
            *self.ends.entry(kind).or_default() += 1;
            if kind == "well" {
                let made = &known.choices[0].made;
                self.finished.push([known.request.prompt.as_slice(), made].concat());
            }
            // Kept only to tell that nothing comes after the end.
            known.request.prompt = Vec::new();
            known.choices = Vec::new();
        }
        Ok(())
    }
}

impl Known {
    fn prompt(&mut self, first: u32, entries: &[scheduler::Logprobs]) -> Check {
        let top = self.request.prompt_logprobs.ok_or("not asked for")?;
        ensure(first == self.prompt_reported + 1, || "not the next stretch".to_owned())?;
        ensure(!entries.is_empty(), || "an empty stretch".to_owned())?;
        let end = first as usize + entries.len();
        ensure(end <= self.request.prompt.len(), || "beyond the prompt".to_owned())?;
        let before = &self.request.prompt[..first as usize];
        let mut chain = before.iter().fold(model::ROOT, |c, &t| model::extend(c, t));
        for (entry, &token) in entries.iter().zip(&self.request.prompt[first as usize..end]) {
            chain = model::extend(chain, token);
            ensure(*entry == model::logprobs(chain, top), || "wrong logprobs".to_owned())?;
        }
        self.prompt_reported += entries.len() as u32;
        Ok(())
    }

    fn token(&mut self, index: u32, token: Token, logprobs: Option<&scheduler::Logprobs>) -> Check {
        let request = &self.request;
        let choice = self.choices.get_mut(index as usize).ok_or("no such choice")?;
        ensure(choice.ended.is_none(), || "after the choice's end".to_owned())?;
        ensure(!self.cancelled, || "after the cancellation".to_owned())?;
        let made = choice.made.len() as u32;
        let most = request.max_tokens.min(request.allowance);
        ensure(made < most, || format!("more than {most} tokens"))?;
        let banned = if made < request.min_tokens { &request.stop_tokens[..] } else { &[] };
        let seed = choice_seed(request.sampling.seed, index);
        let alone = model::draw(choice.chain, seed, banned);
        ensure(token == alone, || format!("run alone it makes {alone}"))?;
        choice.chain = model::extend(choice.chain, token);
        let expected = request.sampling.logprobs.map(|top| model::logprobs(choice.chain, top));
        ensure(logprobs == expected.as_ref(), || "wrong logprobs".to_owned())?;
        choice.made.push(token);
        Ok(())
    }

    fn choice_end(&mut self, index: u32, reason: Finish, sequence_max: usize) -> Check {
        let request = &self.request;
        let choice = self.choices.get_mut(index as usize).ok_or("no such choice")?;
        ensure(choice.ended.is_none(), || "ended twice".to_owned())?;
        choice.ended = Some(reason);
        let made = choice.made.len();
        let stopped = choice.made.last().is_some_and(|last| request.stop_tokens.contains(last))
            && made > request.min_tokens as usize;
        let length = request.max_tokens.min(request.allowance) as usize;
        let full = made >= length.min(sequence_max - request.prompt.len());
        // What came with all that was paid for is over before an extension behind it is heard.
        let full = full || made == choice.given && made >= self.allowance_first as usize;
        let right = match reason {
            Finish::Stop => stopped,
            Finish::Length => full && !stopped,
            Finish::Cancelled => self.cancelled || self.choices_cancelled.contains(&index),
        };
        ensure(right, || format!("wrong reason after {made} tokens"))
    }

    fn end(&self, usage: &Usage) -> Check {
        let all = self.choices.iter().all(|choice| choice.ended.is_some());
        ensure(all, || "a choice has not ended".to_owned())?;
        let whole = self.request.prompt.len() as u32 - 1;
        let expected = self.request.prompt_logprobs.map_or(0, |_| whole);
        let cut = self.choices.iter().any(|choice| choice.ended == Some(Finish::Cancelled));
        // Before a choice has a token, all of the prompt was reported.
        let cut =
            cut || self.request.made_tokens() > 0 || self.choices.iter().any(|c| c.given_ended);
        ensure(cut || self.prompt_reported == expected, || "prompt not reported".to_owned())?;
        self.usage(usage)
    }

    fn refused(
        &self,
        refusal: &Refusal,
        usage: &Usage,
        sequence_max: usize,
        engine_fails: bool,
        now: Micros,
    ) -> Check {
        let request = &self.request;
        let fresh = self.choices.iter().all(Choice::is_fresh);
        let right = match refusal {
            Refusal::Invalid(..) => fresh && request.check().is_err(),
            Refusal::TooLong { needed, limit } => {
                let least = request.made_longest().max(1);
                let too_long = *needed == request.prompt.len() + least && *needed > sequence_max;
                fresh && *limit == sequence_max && too_long
            }
            Refusal::Overloaded => fresh,
            Refusal::Deadline => request.deadline.is_some_and(|deadline| deadline <= now),
            Refusal::Engine(_) => engine_fails || request.prompt.contains(&POISON),
        };
        ensure(right, || "refused without reason".to_owned())?;
        self.usage(usage)
    }

    fn usage(&self, usage: &Usage) -> Check {
        let made: usize = self.choices.iter().map(|choice| choice.made.len()).sum();
        let prompt = self.request.prompt.len();
        let right = usage.completion_tokens as usize == made
            && usage.prompt_tokens as usize == prompt
            && usage.cached_tokens as usize <= prompt.saturating_sub(1)
            && (usage.cached_tokens == 0 || self.request.salt < OWN_SALT)
            && (usage.cached_tokens == 0 || self.request.prompt_logprobs.is_none());
        ensure(right, || format!("wrong usage for {made} tokens"))
    }
}
