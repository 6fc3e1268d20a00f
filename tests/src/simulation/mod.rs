//! The scheduler in a made-up world: a seed decides limits, load and faults, an engine that checks
//! every page runs the batches, and an oracle checks every event. First everything goes wrong for
//! a while (safety), then faults stop and all that lives must end (liveness). It is the scheduler
//! of production, not a model of it; only clock, load and engine are made up, so a seed replays
//! a failure exactly.

pub mod bed;
pub mod engine;
pub mod model;
pub mod oracle;
pub mod random;
pub mod swarm;

use std::collections::{BTreeSet, VecDeque};

use scheduler::{Command, Event, Micros, PageChange, Progress, Scheduler, Stats};

use engine::{Defect, FakeEngine, FaultRates};
use oracle::Oracle;
use random::Random;
use swarm::World;

/// Ticks in which everything must end once load and faults have stopped. A world has at most a
/// few hundred sequences of a few hundred tokens.
const DRAIN_TICKS_MAX: u64 = 60_000;

/// A defect between scheduler and oracle, to prove that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Built into the engine.
    Engine(Defect),
    /// An event is lost.
    DropEvent,
    /// An event comes twice.
    RepeatEvent,
    /// Two events of one tick change places.
    SwapEvents,
}

/// What a run has seen, to know that runs see something.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Stands for all events.
    pub hash: u64,
    /// The scheduler's own counters at the end.
    pub stats: Stats,
    /// Faults injected.
    pub faults: u64,
    /// Rows whose token was unknown when planned.
    pub late_rows: u64,
    /// Times that the sabotage acted.
    pub sabotages: u64,
    /// Requests that came with tokens.
    pub resumed: u64,
    /// Changes of the set of pages held, read one by one.
    pub page_changes: u64,
    /// Requests by how they ended.
    pub ends: std::collections::BTreeMap<&'static str, u64>,
}

struct Run {
    world: World,
    random: Random,
    scheduler: Scheduler<FakeEngine>,
    oracle: Oracle,
    sabotage: Option<Sabotage>,
    sabotages: u64,
    now: Micros,
    sent: u64,
    next_arrival: Micros,
    ticks: u64,
    quiet_ticks: u64,
    resumed: u64,
    /// The pages held, by what was read of their changes.
    held: BTreeSet<u64>,
    page_changes: u64,
    inbox: VecDeque<Command>,
    outbox: Vec<Event>,
}

/// Runs a seed's world to its end.
///
/// # Errors
/// What went wrong, in words.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<Report, String> {
    let mut random = Random::new(seed);
    let world = World::new(&mut random);
    let mut engine = FakeEngine::new(&world.config, world.depth, world.faults, random.bits());
    if let Some(Sabotage::Engine(defect)) = sabotage {
        engine.defect = Some(defect);
    }
    let mut oracle = Oracle::new(&world.config);
    let FaultRates { step, lost, dead, row, .. } = world.faults;
    oracle.engine_fails = step + lost + dead + row > 0;
    let mut scheduler = Scheduler::new(engine, world.config.clone());
    if world.watched > 0 {
        scheduler.watch_pages();
    }
    let run = Run {
        world,
        random,
        scheduler,
        oracle,
        sabotage,
        sabotages: 0,
        now: 0,
        sent: 0,
        next_arrival: 0,
        ticks: 0,
        quiet_ticks: 0,
        resumed: 0,
        held: BTreeSet::new(),
        page_changes: 0,
        inbox: VecDeque::new(),
        outbox: Vec::new(),
    };
    run.finish()
}

impl Run {
    fn finish(mut self) -> Result<Report, String> {
        loop {
            self.send();
            self.scheduler.engine_mut().now = self.now;
            let progress = self.scheduler.tick(self.now, &mut self.inbox, &mut self.outbox);
            self.ticks += 1;
            self.now = self.scheduler.engine().now.max(self.now) + 20;
            self.check()?;
            self.read_pages()?;
            match progress {
                Progress::Busy => {}
                Progress::Idle { wake_at } => {
                    self.scheduler.check_idle();
                    if self.oracle.alive() > 0 {
                        return Err(format!("idle with {:?} alive", self.oracle.names()));
                    }
                    if self.sent == self.world.requests {
                        return Ok(self.report());
                    }
                    self.now = self.now.max(wake_at.unwrap_or(self.next_arrival));
                }
            }
        }
    }

    /// Sends what is due.
    fn send(&mut self) {
        while self.sent < self.world.requests && self.next_arrival <= self.now {
            let Self { world, random, sent, now, oracle, .. } = self;
            let request = world.request(random, *sent, *now, &oracle.finished);
            self.sent += 1;
            self.next_arrival = self.now + self.random.below(self.world.pause_us + 1);
            self.resumed += u64::from(request.made_tokens() > 0);
            self.command(Command::Submit(Box::new(request)));
        }
        if self.sent == self.world.requests {
            self.quiet_ticks += 1;
            self.scheduler.engine_mut().faults = FaultRates::default();
            return;
        }
        let alive = self.oracle.names();
        if alive.is_empty() {
            return;
        }
        let id = self.random.pick(&alive);
        if self.random.permille(self.world.cancels) {
            self.command(Command::Cancel(id));
        }
        if self.random.permille(self.world.choice_cancels) {
            let choice = self.random.below(4) as u32;
            self.command(Command::CancelChoice(id, choice));
        }
        for id in alive {
            let (allowance, most) = self.oracle.allowance(id);
            if allowance < most && self.random.permille(self.world.extends) {
                let more = allowance + self.random.between(1, 4) as u32;
                self.command(Command::Extend(id, more));
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.oracle.command(&command);
        self.inbox.push_back(command);
    }

    fn check(&mut self) -> Result<(), String> {
        let engine = self.scheduler.engine();
        if let Some(violation) = &engine.violation {
            return Err(format!("engine: {violation}"));
        }
        let acts = self.random.permille(30);
        let len = self.outbox.len();
        match self.sabotage {
            Some(Sabotage::DropEvent) if acts && len > 0 => {
                self.outbox.remove(self.random.below(len as u64) as usize);
                self.sabotages += 1;
            }
            Some(Sabotage::RepeatEvent) if acts && len > 0 => {
                self.outbox.push(self.outbox[len - 1].clone());
                self.sabotages += 1;
            }
            Some(Sabotage::SwapEvents) if len > 1 && ends_something(&self.outbox[len - 1]) => {
                self.outbox.swap(len - 2, len - 1);
                self.sabotages += 1;
            }
            _ => {}
        }
        for event in self.outbox.drain(..) {
            self.oracle.event(&event, self.now).map_err(|e| format!("at {}: {e}", self.now))?;
        }
        let stats = self.scheduler.stats();
        let pages = stats.pages_free + stats.pages_cached + stats.pages_held;
        if pages != stats.pages_total || stats.requests != self.oracle.alive() {
            return Err(format!("{} alive, but {stats:?}", self.oracle.alive()));
        }
        if self.quiet_ticks > DRAIN_TICKS_MAX {
            return Err(format!("{:?} starve", self.oracle.names()));
        }
        Ok(())
    }

    /// Now and then: what was read of the changes is what is held.
    fn read_pages(&mut self) -> Result<(), String> {
        if !self.random.permille(self.world.watched) {
            return Ok(());
        }
        let mut changes = Vec::new();
        let whole = self.scheduler.drain_page_changes(&mut changes);
        let held: BTreeSet<u64> = self.scheduler.held_pages().into_iter().collect();
        for PageChange { hash, held } in changes {
            let new = if held { self.held.insert(hash) } else { self.held.remove(&hash) };
            if whole && !new {
                return Err(format!("{hash} was told to be held ({held}) twice"));
            }
            self.page_changes += 1;
        }
        if !whole {
            self.held.clone_from(&held);
        }
        let stats = self.scheduler.stats();
        if held != self.held || held.len() > stats.pages_cached + stats.pages_held {
            return Err(format!("{} pages told, {} held: {stats:?}", self.held.len(), held.len()));
        }
        Ok(())
    }

    fn report(self) -> Report {
        let engine = self.scheduler.engine();
        Report {
            hash: random::mix(self.oracle.hash, self.ticks),
            stats: self.scheduler.stats(),
            faults: engine.faults_injected,
            late_rows: engine.late_rows,
            sabotages: self.sabotages + engine.defects,
            resumed: self.resumed,
            page_changes: self.page_changes,
            ends: self.oracle.ends,
        }
    }
}

/// Whether an event ends a choice or request, so that the one before it must come before it.
fn ends_something(event: &Event) -> bool {
    !matches!(event, Event::Token { .. } | Event::PromptLogprobs(..))
}
