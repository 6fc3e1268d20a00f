//! [`Timed`]: the engine of a scheduler, with a note of what every step was and how long it took.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kernels::Compute;
use scheduler::types::{Batch, Engine, Fault, StepOutput};

use crate::runner::Runner;

/// A step that was collected.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepTime {
    /// Its number.
    pub(super) step: u64,
    /// Sequences in it.
    pub(super) rows: usize,
    /// Positions that it computed.
    pub(super) tokens: usize,
    /// Positions that its rows attended to, together.
    pub(super) attended: usize,
    /// When it was collected.
    pub(super) at: Instant,
    /// What the device says that it took.
    pub(super) device_us: u64,
    /// Time that the host worked in the tick that collected it; filled in by the driver.
    pub(super) host: Duration,
}

/// A runner that notes times.
pub(super) struct Timed<'a, C: Compute> {
    runner: &'a mut Runner<C>,
    in_flight: VecDeque<StepTime>,
    /// Every step so far.
    pub(super) steps: Vec<StepTime>,
    /// Time since [`Timed::take_waited`] that the host only waited: in `collect`, and in
    /// `launch` where that computes.
    waited: Duration,
}

impl<'a, C: Compute> Timed<'a, C> {
    pub(super) fn new(runner: &'a mut Runner<C>) -> Self {
        Self { runner, in_flight: VecDeque::new(), steps: Vec::new(), waited: Duration::ZERO }
    }

    /// Time waited since the last call.
    pub(super) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl<C: Compute> Engine for Timed<'_, C> {
    fn depth(&self) -> usize {
        self.runner.depth()
    }

    fn drafts_max(&self) -> u32 {
        self.runner.drafts_max()
    }

    fn launch(&mut self, batch: &Batch) {
        let attended = batch.rows.iter().map(|row| (row.first + row.len) as usize).sum();
        let started = Instant::now();
        self.in_flight.push_back(StepTime {
            step: batch.step,
            rows: batch.rows.len(),
            tokens: batch.tokens.len(),
            attended,
            at: started,
            device_us: 0,
            host: Duration::ZERO,
        });
        self.runner.launch(batch);
        if self.runner.depth() == 1 {
            self.waited += started.elapsed();
        }
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        let started = Instant::now();
        let result = self.runner.collect(out);
        let at = Instant::now();
        self.waited += at - started;
        let step = self.in_flight.pop_front().expect("a step in flight");
        if result.is_ok() {
            self.steps.push(StepTime { at, device_us: out.elapsed_us, ..step });
        }
        result
    }
}
