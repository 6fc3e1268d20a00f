//! What a node tells of a request, checked against what it may tell: nothing that a node says is
//! believed only because it says so. Also what is known of the request at any time.

use scheduler::types::{Event, Finish, Logprobs, PromptLogprobs, Refusal, Usage};

use super::{Came, Carrier, Failed};
use crate::cluster::protocol::{Told, Why};

impl Carrier {
    /// Takes in a line. `Some`: it was the last that counts.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<Option<Came>, String> {
        let told: Told = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        match told {
            Told::Tokens(tokens) => {
                let count = u64::try_from(tokens.len()).unwrap_or(u64::MAX);
                for (choice, token) in tokens {
                    self.token(choice, token, None)?;
                }
                self.shared.service.metrics.generated(count);
            }
            Told::Scored(choice, token, score) => {
                self.token(choice, token, Some(score.into()))?;
                self.shared.service.metrics.generated(1);
            }
            Told::Prompt(first, scores) => {
                self.scores(first, scores.into_iter().map(Logprobs::from).collect())?;
            }
            Told::Ended(choice, reason) => {
                if self.ended(choice, reason.into())? {
                    return Ok(Some(Came::More));
                }
            }
            Told::Done(used) => {
                self.used = used.into();
                if self.control.wishes.is_cancelled() {
                    return Ok(Some(Came::Left));
                }
                if !self.all_ended() {
                    return Err("it says that all has ended, and it has not".to_owned());
                }
                return Ok(Some(Came::Done));
            }
            Told::Refused(why, used) => {
                self.used = used.into();
                return Ok(Some(match why {
                    Why::Overloaded => Came::Full,
                    Why::Engine(why) => Came::Failed(Failed::Engine(why)),
                    why => match Refusal::from(why) {
                        Refusal::Engine(why) => Came::Failed(Failed::Engine(why)),
                        refusal => Came::Refused(refusal),
                    },
                }));
            }
        }
        Ok(None)
    }

    fn token(&mut self, choice: u32, token: u32, logprobs: Option<Logprobs>) -> Result<(), String> {
        let at = usize::try_from(choice).unwrap_or(usize::MAX);
        let made = self.request.made.get_mut(at).filter(|made| !made.ended);
        let made = made.ok_or_else(|| format!("a token of choice {choice}, which is not open"))?;
        let most = usize::try_from(self.request.max_tokens).unwrap_or(usize::MAX);
        if made.tokens.len() >= most {
            return Err(format!("more tokens of choice {choice} than it may have"));
        }
        if self.request.sampling.logprobs.is_some() != logprobs.is_some() {
            return Err(
                "log-probabilities are there, or missing, against what was asked".to_owned()
            );
        }
        made.tokens.push(token);
        let paid = self.meter.as_mut().and_then(|meter| meter.token(choice));
        if let Some(allowance) = paid {
            let most = self.request.max_tokens;
            self.request.allowance = self.request.allowance.max(allowance.min(most));
        }
        let logprobs = logprobs.map(Box::new);
        self.tell(Event::Token { id: self.request.id, choice, token, logprobs });
        Ok(())
    }

    fn scores(&mut self, first: u32, mut entries: Vec<Logprobs>) -> Result<(), String> {
        let at = self.scored + 1;
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let end = first.saturating_add(count);
        let length = u32::try_from(self.request.prompt.len()).unwrap_or(u32::MAX);
        if self.request.prompt_logprobs.is_none() || first == 0 || first > at || end > length {
            return Err(format!("scores of the prompt from {first} on, which nobody asked for"));
        }
        // Another node has told the first of them already.
        let known = usize::try_from(at - first).unwrap_or(usize::MAX).min(entries.len());
        entries.drain(..known);
        if entries.is_empty() {
            return Ok(());
        }
        self.scored = end - 1;
        self.tell(Event::PromptLogprobs(self.request.id, PromptLogprobs { first: at, entries }));
        Ok(())
    }

    /// A choice has ended; `true`: only because the node did not know that more is paid for.
    fn ended(&mut self, choice: u32, reason: Finish) -> Result<bool, String> {
        let at = usize::try_from(choice).unwrap_or(usize::MAX);
        let (prompt, context) = (self.request.prompt.len(), self.shared.context);
        let made = self.request.made.get_mut(at).filter(|made| !made.ended);
        let made = made.ok_or_else(|| format!("the end of choice {choice}, which is not open"))?;
        let count = u32::try_from(made.tokens.len()).unwrap_or(u32::MAX);
        let room = prompt.saturating_add(made.tokens.len()) < context;
        if reason == Finish::Length && room && count < self.request.allowance {
            if self.request.made_tokens() == self.before {
                return Err("it ends before the bound, and has made nothing".to_owned());
            }
            return Ok(true);
        }
        made.ended = true;
        self.tell(Event::ChoiceEnd { id: self.request.id, choice, reason });
        Ok(false)
    }

    /// Choices that nobody wants are not asked for again.
    pub(super) fn end_unwanted(&mut self) {
        for choice in 0..self.request.choices {
            let at = usize::try_from(choice).unwrap_or(usize::MAX);
            let Some(made) = self.request.made.get_mut(at) else { return };
            if !made.ended && self.control.wishes.cancels(choice) {
                made.ended = true;
                let reason = Finish::Cancelled;
                self.tell(Event::ChoiceEnd { id: self.request.id, choice, reason });
            }
        }
    }

    pub(super) fn all_ended(&self) -> bool {
        self.request.made.iter().all(|made| made.ended)
    }

    /// All of the prompt's log-probabilities went out, if any are wanted.
    pub(super) fn has_scores(&self) -> bool {
        let last = u32::try_from(self.request.prompt.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.request.prompt_logprobs.is_some() && self.scored >= last
    }

    /// What was used: tokens by our own count, the rest as the last node says.
    pub(super) fn usage(&self) -> Usage {
        let prompt_tokens = u32::try_from(self.request.prompt.len()).unwrap_or(u32::MAX);
        Usage {
            prompt_tokens,
            cached_tokens: self.used.cached_tokens.min(prompt_tokens),
            completion_tokens: u32::try_from(self.request.made_tokens()).unwrap_or(u32::MAX),
            ..self.used
        }
    }

    /// A reader that left reads nothing; room for all events of a request is there.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
