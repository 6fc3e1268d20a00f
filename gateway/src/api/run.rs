//! One prompt in the engine's hands: its events become the text of its choices.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use govern::Money;
use scheduler::types::{Event, Logprobs};
use text::TextModel;
use text::grammar::Grammar;
use wire::{Decoding, ErrorKind, Finish, TokenLogprob, TopLogprob, Usage};

use super::bill::{self, Bill};
use super::choice::{Choice, Rules};
use super::error::{Failure, of_refusal};
use super::prepare::Job;
use super::voice::{Manner, Voice};
use crate::backend::{Along, Generation, Hedge, Model};

/// Events taken in before what they made is written: a bound on the work between two writes.
const EVENTS_PER_STEP: usize = 1024;

/// One prompt, running.
pub(super) struct Run {
    pub(super) choices: Vec<Choice>,
    /// The prompt's tokens, where the answer shows them.
    pub(super) prompt: Option<Vec<u32>>,
    /// The prompt's log-probabilities so far, where asked for.
    scores: Option<Vec<TokenLogprob>>,
    /// How many there will be.
    prompt_len: usize,
    /// The first text is the prompt and carries its log-probabilities.
    echo_scored: bool,
    /// The engine holds nothing of it any more, and whoever pays has it in the books.
    pub(super) ended: bool,
    /// What it has cost, once that is known.
    pub(super) cost: Option<Money>,
    /// What its reader should know beside the answer.
    pub(super) notice: Option<&'static str>,
    bill: Option<Bill>,
    /// Ready when what it has cost is durable.
    settling: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    usage: Usage,
    rules: Rules,
    decoding: Arc<Decoding>,
    generation: Generation,
    model: Arc<Model>,
}

impl Run {
    /// Submits a prompt. Its choices count from `first`.
    pub(super) fn start(
        model: &Arc<Model>,
        decoding: &Arc<Decoding>,
        job: Job,
        (grammar, manner): (Option<Arc<Grammar>>, Option<&Arc<Manner>>),
        first: u32,
        (bill, arrived, hedge): (Option<Bill>, Instant, Option<Hedge>),
    ) -> Result<Self, Failure> {
        let Job { request, detokenizer, stops, echo } = job;
        let rules = Rules {
            stop_tokens: request.stop_tokens.clone(),
            include_stop: decoding.include_stop,
            min_tokens: decoding.min_tokens.into(),
            mute: decoding.max_tokens == Some(0),
        };
        let prompt_len = request.prompt.len();
        let scores = request.prompt_logprobs.map(|_| {
            let id = request.prompt.first().copied().unwrap_or_default();
            vec![first_score(&model.text, id, decoding.skip_special_tokens)]
        });
        let keep = decoding.return_token_ids || scores.is_some();
        let prompt = keep.then(|| request.prompt.clone());
        let usage = Usage {
            prompt_tokens: u64::try_from(prompt_len).unwrap_or(u64::MAX),
            ..Usage::default()
        };
        let choices = (first..first + decoding.choices).map(|index| {
            let voice = manner.map(Voice::new);
            let mut choice =
                Choice::new(index, decoding, (detokenizer.clone(), stops.clone()), voice);
            choice.text = echo.clone().unwrap_or_default();
            choice
        });
        let mut run = Self {
            choices: choices.collect(),
            prompt,
            scores,
            prompt_len,
            echo_scored: echo.is_some() && decoding.logprobs.is_some(),
            ended: false,
            usage,
            rules,
            decoding: Arc::clone(decoding),
            generation: {
                let meter = bill.as_ref().map(Bill::meter);
                model.submit(request, Along { grammar, meter, arrived, hedge })?
            },
            cost: None,
            notice: None,
            bill,
            settling: None,
            model: Arc::clone(model),
        };
        if prompt_len == 1 {
            // Nothing predicts a first token, so no stretch will come.
            run.scored();
        }
        Ok(run)
    }

    /// Waits for an event and takes in what else is there. May be dropped while it waits.
    pub(super) async fn step(&mut self) -> Result<(), Failure> {
        if let Some(settling) = &mut self.settling {
            settling.await;
            self.ended = true;
            return Ok(());
        }
        let first = self.generation.next().await.ok_or_else(lost)?;
        let mut over = self.take(first)?;
        // An event is fetched only where it is also taken: the bound must not lose the one it
        // stops at.
        for _ in 1..EVENTS_PER_STEP {
            if over {
                break;
            }
            let Some(event) = self.generation.try_next() else { break };
            over = self.take(event)?;
        }
        self.account(over);
        Ok(())
    }

    /// Tells who pays what is about to be handed out. At the end, what is left to hand out may go,
    /// but not the last byte: that waits for the books.
    fn account(&mut self, over: bool) {
        let Some(bill) = &self.bill else {
            self.ended = over;
            return;
        };
        let Usage { completion_tokens, reasoning_tokens, .. } = self.usage();
        if over {
            let receipt = bill.finish(completion_tokens, reasoning_tokens);
            self.cost = Some(receipt.cost);
            self.notice = receipt.budget_stop.then_some(bill::USED_UP);
            self.settling = Some(Box::pin(bill::durable(receipt)));
        } else {
            bill.hands_out(completion_tokens, reasoning_tokens);
        }
    }

    /// The engine has failed at it. One that hangs has no word of its own: what was held is free
    /// now, and nobody pays.
    pub(super) fn failed(&self) {
        self.bill.iter().for_each(Bill::failed);
    }

    /// The node of the cluster that it was sent to, and why.
    pub(super) fn route(&self) -> Option<&str> {
        self.generation.route()
    }

    /// Whether text may be shown: an echo waits for its log-probabilities.
    pub(super) fn may_show(&self) -> bool {
        !self.echo_scored
    }

    /// Tokens so far.
    pub(super) fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(|choice| choice.tokens).sum();
        let voices = self.choices.iter().filter_map(|choice| choice.voice.as_ref());
        let reasoning_tokens = voices.map(|voice| voice.thoughts).sum();
        Usage { completion_tokens, reasoning_tokens, ..self.usage }
    }

    /// The prompt's log-probabilities for an answer that shows them beside the text.
    pub(super) fn prompt_logprobs(&self) -> Option<Vec<TokenLogprob>> {
        let most = self.decoding.prompt_logprobs?;
        Some(best(self.scores.as_ref()?, most))
    }

    /// Takes an event in. `true`: it was the last.
    fn take(&mut self, event: Event) -> Result<bool, Failure> {
        match event {
            Event::PromptLogprobs(_, stretch) => self.score(stretch.first, &stretch.entries),
            Event::Token { choice, token, logprobs, .. } => {
                let skip = self.decoding.skip_special_tokens;
                let text = &self.model.text;
                let entry = logprobs.map(|found| entry(text, token, &found, skip));
                if let Some(own) = of(&mut self.choices, choice)
                    && own.push(&self.rules, token, entry, text.is_special(token))
                {
                    self.generation.cancel_choice(choice);
                }
            }
            Event::ChoiceEnd { choice, reason, .. } => {
                let Some(own) = of(&mut self.choices, choice) else { return Ok(false) };
                match reason {
                    // No token was asked for, so whatever the one made was, the bound was met.
                    _ if self.rules.mute => own.end(Finish::Length),
                    scheduler::types::Finish::Stop => own.end(Finish::Stop),
                    scheduler::types::Finish::Length => own.end(Finish::Length),
                    // Asked for by this file: the choice has its finish already.
                    scheduler::types::Finish::Cancelled => {}
                }
            }
            Event::End(_, used) => {
                self.usage.cached_tokens = used.cached_tokens.into();
                if self.choices.iter().any(|choice| choice.finish.is_none()) {
                    self.ended = true;
                    return Err(lost());
                }
                return Ok(true);
            }
            Event::Refused(_, why, _) => {
                self.ended = true;
                let Model { id, engine, .. } = &*self.model;
                return Err(of_refusal(why, id, &engine.state(), engine.retry_after_s()));
            }
        }
        Ok(false)
    }

    /// Takes a stretch of the prompt's log-probabilities.
    fn score(&mut self, first: u32, entries: &[Logprobs]) {
        let (Some(scores), Some(prompt)) = (&mut self.scores, &self.prompt) else { return };
        let at = usize::try_from(first).unwrap_or(usize::MAX);
        debug_assert_eq!(at, scores.len(), "stretches come in order");
        let skip = self.decoding.skip_special_tokens;
        for (id, found) in prompt.iter().skip(at).zip(entries) {
            scores.push(entry(&self.model.text, *id, found, skip));
        }
        if scores.len() == self.prompt_len {
            self.scored();
        }
    }

    /// All scores are there: an echo's choices begin with them.
    fn scored(&mut self) {
        let (true, Some(most)) = (self.echo_scored, self.decoding.logprobs) else { return };
        let scores = best(self.scores.as_deref().unwrap_or_default(), most);
        for choice in &mut self.choices {
            if let Some(all) = &mut choice.logprobs {
                all.splice(0..0, scores.iter().cloned());
            }
        }
        self.echo_scored = false;
    }
}

fn of(choices: &mut [Choice], index: u32) -> Option<&mut Choice> {
    choices.get_mut(usize::try_from(index).ok()?)
}

/// An engine that goes away without a word must not look like one that is done.
fn lost() -> Failure {
    Failure::new(ErrorKind::Internal, "engine_error", "The engine ended without a result.")
}

fn entry(text: &TextModel, id: u32, found: &Logprobs, skip_special: bool) -> TokenLogprob {
    let top = found.top.iter().map(|&(id, logprob)| TopLogprob {
        id,
        bytes: text.token_bytes(id).to_vec(),
        logprob,
    });
    TokenLogprob {
        id,
        bytes: text.token_bytes(id).to_vec(),
        logprob: Some(found.logprob),
        rank: found.rank,
        top: top.collect(),
        hidden: skip_special && text.is_special(id),
    }
}

/// Nothing predicts the first token of a prompt.
fn first_score(text: &TextModel, id: u32, skip_special: bool) -> TokenLogprob {
    let found = Logprobs::default();
    TokenLogprob { logprob: None, ..entry(text, id, &found, skip_special) }
}

/// The same with fewer alternatives.
fn best(scores: &[TokenLogprob], most: u32) -> Vec<TokenLogprob> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let fewer = scores.iter().cloned().map(|mut score| {
        score.top.truncate(most);
        score
    });
    fewer.collect()
}
