//! The loop: take commands, plan a step, launch it, settle the one before.
//!
//! With two steps in flight the device computes one while this plans the next, so planning costs
//! no device time. It reads no clock and waits for nothing but the engine's `collect`.

use std::collections::VecDeque;

use crate::config::Config;
use crate::core::Core;
use crate::stats::Stats;
use crate::types::{Command, Engine, Event, Fault, Micros, StepOutput};
use crate::watch::PageChange;

/// Ticks with work but without a step before this is called a defect. One may pass while
/// preempted rows land or suspects are cleared.
const STALLS_MAX: u32 = 4;

/// What a tick leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Call again at once: a step is in flight or something can run.
    Busy,
    /// Nothing in flight and nothing to run: call again when a command comes, or at `wake_at`.
    Idle {
        /// The earliest deadline of something that waits.
        wake_at: Option<Micros>,
    },
}

/// Plans steps for one engine. One thread owns it.
pub struct Scheduler<E: Engine> {
    engine: E,
    core: Core,
    made: StepOutput,
    stalls: u32,
}

impl<E: Engine> Scheduler<E> {
    /// A scheduler with nothing to do.
    ///
    /// # Panics
    /// The configuration contradicts itself, or the engine's depth is neither 1 nor 2.
    #[must_use]
    pub fn new(engine: E, mut config: Config) -> Self {
        assert!((1..=2).contains(&engine.depth()), "depth {}", engine.depth());
        config.drafts_max = config.drafts_max.min(engine.drafts_max());
        Self { engine, core: Core::new(config), made: StepOutput::default(), stalls: 0 }
    }

    /// Takes all commands, plans and launches a step, and settles the oldest step in flight when
    /// no more may be in flight. Events are appended.
    pub fn tick(
        &mut self,
        now: Micros,
        inbox: &mut VecDeque<Command>,
        outbox: &mut Vec<Event>,
    ) -> Progress {
        self.core.now = now;
        while let Some(command) = inbox.pop_front() {
            self.core.obey(command, outbox);
        }
        self.core.expire(outbox);
        let launched = self.core.plan();
        if launched {
            self.engine.launch(&self.core.batch);
        }
        let in_flight = self.core.flights.len();
        let full = in_flight == self.engine.depth();
        if full || !launched && in_flight > 0 {
            self.collect(outbox);
        }
        self.progress(launched || in_flight > 0)
    }

    /// Waits for the oldest step and takes in what it made.
    fn collect(&mut self, outbox: &mut Vec<Event>) {
        let flight = self.core.flights.pop_front().expect("a step in flight");
        match self.engine.collect(&mut self.made) {
            Ok(()) => self.core.settle(flight, &mut self.made, outbox),
            Err(mut fault) => {
                // A step launched on top of a failed one is worth nothing, whatever it says.
                let mut failed = vec![flight];
                while let Some(later) = self.core.flights.pop_front() {
                    if let Err(other) = self.engine.collect(&mut self.made) {
                        fault = worse(fault, other);
                    }
                    failed.push(later);
                }
                self.core.recover(failed, fault, outbox);
            }
        }
    }

    fn progress(&mut self, moved: bool) -> Progress {
        let core = &self.core;
        if core.is_idle() {
            self.core.pages.check_idle();
            self.stalls = 0;
            return Progress::Idle { wake_at: None };
        }
        self.stalls = if moved { 0 } else { self.stalls + 1 };
        assert!(self.stalls <= STALLS_MAX, "work, but nothing to launch: {:?}", core.stats());
        Progress::Busy
    }

    /// A snapshot of gauges and counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Notes from now on which pages become findable and which cease to be. Costs a few compares
    /// per page; nothing before it is asked for.
    pub fn watch_pages(&mut self) {
        self.core.pages.watch();
    }

    /// Appends the changes since the last call. False: more happened than is noted one by one
    /// (it has just begun, the device lost its memory, or nobody read for long); what is true now
    /// is then [`Scheduler::held_pages`].
    pub fn drain_page_changes(&mut self, into: &mut Vec<PageChange>) -> bool {
        self.core.pages.drain_changes(into)
    }

    /// The hashes of all pages that can be found, as [`crate::prefix_hashes`] has them, smallest
    /// first. Where a page of a prompt is missing, none behind it helps.
    #[must_use]
    pub fn held_pages(&self) -> Vec<u64> {
        self.core.pages.held_hashes()
    }

    /// Asserts that nothing is alive and nothing leaked.
    ///
    /// # Panics
    /// A request is alive, or something is held by nobody.
    pub fn check_idle(&self) {
        self.core.check_idle();
    }

    /// The limits it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, for what is not planning: its name, its temperature.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }
}

/// The fault that leaves less.
fn worse(a: Fault, b: Fault) -> Fault {
    let grade = |fault: &Fault| match fault {
        Fault::Step(_) => 0,
        Fault::Lost(_) => 1,
        Fault::Dead(_) => 2,
    };
    if grade(&b) > grade(&a) { b } else { a }
}
