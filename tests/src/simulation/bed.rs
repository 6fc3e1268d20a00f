//! A test bed for one question at a time: the scheduler over the checking engine and the oracle,
//! without a swarm.

use std::collections::VecDeque;

use scheduler::{
    Command, Config, Event, Micros, Progress, Request, RequestId, Sampling, Scheduler, Token, Usage,
};

use super::engine::{FakeEngine, FaultRates};
use super::model::VOCABULARY;
use super::oracle::Oracle;
use super::random::Random;

/// See the module.
pub struct Bed {
    /// The scheduler under test.
    pub scheduler: Scheduler<FakeEngine>,
    oracle: Oracle,
    inbox: VecDeque<Command>,
    /// Events so far with their times.
    pub events: Vec<(Micros, Event)>,
    /// The time.
    pub now: Micros,
}

impl Bed {
    /// Nothing sent yet.
    #[must_use]
    pub fn new(config: &Config, depth: usize) -> Self {
        let engine = FakeEngine::new(config, depth, FaultRates::default(), 1);
        Self {
            scheduler: Scheduler::new(engine, config.clone()),
            oracle: Oracle::new(config),
            inbox: VecDeque::new(),
            events: Vec::new(),
            now: 0,
        }
    }

    /// Sends a command with the next tick.
    pub fn send(&mut self, command: Command) {
        self.oracle.command(&command);
        self.inbox.push_back(command);
    }

    /// Sends a request.
    pub fn submit(&mut self, request: Request) {
        self.send(Command::Submit(Box::new(request)));
    }

    /// One tick; panics when anything is wrong. True while busy.
    pub fn tick(&mut self) -> bool {
        let mut outbox = Vec::new();
        self.scheduler.engine_mut().now = self.now;
        let progress = self.scheduler.tick(self.now, &mut self.inbox, &mut outbox);
        self.now = self.scheduler.engine().now.max(self.now) + 20;
        if let Some(violation) = &self.scheduler.engine().violation {
            panic!("{violation}");
        }
        for event in outbox {
            if let Err(what) = self.oracle.event(&event, self.now) {
                panic!("{what}");
            }
            self.events.push((self.now, event));
        }
        progress == Progress::Busy
    }

    /// Ticks until nothing is left to do; panics when something is left behind.
    pub fn drain(&mut self) {
        for _ in 0..100_000 {
            if !self.tick() {
                self.scheduler.check_idle();
                assert_eq!(self.oracle.alive(), 0, "idle with requests alive");
                return;
            }
        }
        panic!("no end: {:?}", self.scheduler.stats());
    }

    /// The usage of a request that ended well.
    #[must_use]
    pub fn usage(&self, id: u64) -> Option<Usage> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::End(of, usage) if of.0 == id => Some(*usage),
            _ => None,
        })
    }

    /// When each token of a choice came, and which.
    #[must_use]
    pub fn tokens(&self, id: u64, choice: u32) -> Vec<(Micros, Token)> {
        let of = |event: &Event| match event {
            Event::Token { id: of, choice: c, token, .. } if of.0 == id && *c == choice => {
                Some(*token)
            }
            _ => None,
        };
        self.events.iter().filter_map(|(at, event)| of(event).map(|token| (*at, token))).collect()
    }
}

/// A plain request: a random prompt of this length, so many tokens, no stop tokens.
#[must_use]
pub fn request(id: u64, prompt_len: usize, max_tokens: u32) -> Request {
    let mut random = Random::new(id);
    Request {
        id: RequestId(id),
        prompt: (0..prompt_len).map(|_| random.below(VOCABULARY) as Token).collect(),
        choices: 1,
        max_tokens,
        allowance: u32::MAX,
        min_tokens: 0,
        stop_tokens: Vec::new(),
        sampling: Sampling { seed: id, ..Sampling::default() },
        prompt_logprobs: None,
        priority: 0,
        tenant: 0,
        salt: 0,
        adapter: 0,
        grammar: 0,
        deadline: None,
        made: Vec::new(),
    }
}
