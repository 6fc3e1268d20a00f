//! [`Drive`]: requests of random tokens through the real scheduler, with a clock beside it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use kernels::Compute;
use scheduler::types::{Command, Event, Request, RequestId, Token};
use scheduler::{Config, Progress, Scheduler};

use super::BenchError;
use super::blocks::Random;
use super::timed::{StepTime, Timed};
use crate::runner::Runner;

/// One scheduler over a borrowed runner.
pub(super) struct Drive<'a, C: Compute> {
    scheduler: Scheduler<Timed<'a, C>>,
    started: Instant,
    random: Random,
    vocab: usize,
    next_id: u64,
    open: BTreeSet<RequestId>,
    inbox: VecDeque<Command>,
    outbox: Vec<Event>,
    /// Requests that got a token in the last tick.
    pub(super) tokens: Vec<RequestId>,
    /// Requests that ended in the last tick.
    pub(super) ended: Vec<RequestId>,
}

impl<'a, C: Compute> Drive<'a, C> {
    /// `seed`: prompts of two drives with one seed are the same.
    pub(super) fn new(runner: &'a mut Runner<C>, config: Config, vocab: usize, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(Timed::new(runner), config),
            started: Instant::now(),
            random: Random::new(seed),
            vocab,
            next_id: 0,
            open: BTreeSet::new(),
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            tokens: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Hands in a prompt of random tokens, to be taken at the next tick.
    pub(super) fn submit(&mut self, prompt: usize, max_tokens: usize) -> RequestId {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let prompt: Vec<Token> =
            (0..prompt).map(|_| self.random.below(self.vocab) as Token).collect();
        let max_tokens = max_tokens as u32;
        self.open.insert(id);
        let request = Request::greedy(id, prompt, max_tokens);
        self.inbox.push_back(Command::Submit(Box::new(request)));
        id
    }

    /// Runs one tick. `false`: there is nothing left to do.
    ///
    /// # Errors
    /// A request was refused, or the device failed.
    pub(super) fn tick(&mut self) -> Result<bool, BenchError> {
        let steps = self.scheduler.engine().steps.len();
        let begin = Instant::now();
        let now = begin.duration_since(self.started).as_micros() as u64;
        let progress = self.scheduler.tick(now, &mut self.inbox, &mut self.outbox);
        let took = begin.elapsed();
        let engine = self.scheduler.engine_mut();
        let host = took.saturating_sub(engine.take_waited());
        engine.steps[steps..].iter_mut().for_each(|step| step.host = host);
        self.tokens.clear();
        self.ended.clear();
        for event in self.outbox.drain(..) {
            match event {
                Event::Token { id, .. } => self.tokens.push(id),
                Event::End(id, _) => {
                    self.open.remove(&id);
                    self.ended.push(id);
                }
                Event::Refused(_, why, _) => {
                    return Err(BenchError::Engine(format!("a request was refused: {why:?}")));
                }
                Event::PromptLogprobs(..) | Event::ChoiceEnd { .. } => {}
            }
        }
        Ok(progress == Progress::Busy)
    }

    /// Ends everything that runs, so that the runner is free for others.
    ///
    /// # Errors
    /// As [`Drive::tick`].
    pub(super) fn finish(&mut self) -> Result<(), BenchError> {
        self.inbox.extend(self.open.iter().map(|id| Command::Cancel(*id)));
        while self.tick()? {}
        Ok(())
    }

    /// Every step so far.
    pub(super) fn steps(&self) -> &[StepTime] {
        &self.scheduler.engine().steps
    }

    /// Times that a sequence lost its pages.
    pub(super) fn preemptions(&self) -> u64 {
        self.scheduler.stats().preemptions
    }
}
