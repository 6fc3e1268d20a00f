//! What a tick costs: the scheduler over an engine that does nothing, with every row decoding and
//! a line of requests behind them. The engine's own time (one sample per row) is in the figure.

use std::collections::VecDeque;
use std::time::Instant;

use scheduler::{
    Batch, Command, Config, Engine, Event, Fault, Logits, Request, RequestId, Sample, Sampling,
    Scheduler, StepOutput, Token,
};

/// Answers every row at once with a token that ends nothing.
struct Nothing {
    in_flight: VecDeque<Vec<u32>>,
    spare: Vec<Vec<u32>>,
    steps: u64,
}

impl Engine for Nothing {
    fn depth(&self) -> usize {
        2
    }

    fn drafts_max(&self) -> u32 {
        0
    }

    fn launch(&mut self, batch: &Batch) {
        let mut slots = self.spare.pop().unwrap_or_default();
        let draws = batch.rows.iter().filter(|row| row.logits == Logits::Sample);
        slots.extend(draws.map(|row| row.slot));
        self.in_flight.push_back(slots);
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        let mut slots = self.in_flight.pop_front().expect("a step in flight");
        self.steps += 1;
        out.step = self.steps;
        out.elapsed_us = 5000;
        out.samples.clear();
        out.prompt_logprobs.clear();
        out.failed.clear();
        let sample = |slot| Sample { slot, token: 7, logprobs: None, forced: Vec::new() };
        out.samples.extend(slots.drain(..).map(sample));
        self.spare.push(slots);
        Ok(())
    }
}

/// What one run measured, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct TickBench {
    /// Rows that decoded in every tick.
    pub rows: usize,
    /// Requests that waited meanwhile.
    pub waiting: usize,
    /// Median tick.
    pub median_ns: u64,
    /// 99 of 100 ticks took at most this.
    pub p99_ns: u64,
    /// Slowest tick.
    pub max_ns: u64,
    /// Median tick divided by rows.
    pub per_row_ns: f64,
}

/// Prompt tokens of each request.
const PROMPT: usize = 512;

/// Fills `rows` rows, puts `waiting` requests behind them, and measures `ticks` ticks in which
/// every row makes a token. Eight tenants; every row takes a new page each sixteenth tick and
/// registers its full one.
///
/// # Panics
/// The scheduler does not do what the figures would claim.
#[must_use]
pub fn run(rows: usize, waiting: usize, ticks: usize) -> TickBench {
    // The first rows decode already while the last prompts are computed.
    let made = ticks + rows + 64;
    let length = PROMPT + made;
    let config = Config {
        waiting_max: rows + waiting,
        target_itl_us: 0,
        watermark_pages: 0,
        ..Config::new(rows, rows * length.div_ceil(16), length)
    };
    let engine = Nothing { in_flight: VecDeque::new(), spare: Vec::new(), steps: 0 };
    let mut scheduler = Scheduler::new(engine, config);
    let mut inbox: VecDeque<Command> = (0..rows + waiting).map(|i| submit(i, made)).collect();
    let mut outbox: Vec<Event> = Vec::new();
    let mut now = 0;
    let mut decoding = 0;
    while decoding < rows {
        scheduler.tick(now, &mut inbox, &mut outbox);
        now += 5000;
        decoding = outbox.iter().filter(|event| matches!(event, Event::Token { .. })).count();
        outbox.clear();
    }
    let mut took: Vec<u64> = Vec::with_capacity(ticks);
    for _ in 0..ticks {
        let start = Instant::now();
        scheduler.tick(now, &mut inbox, &mut outbox);
        took.push(start.elapsed().as_nanos() as u64);
        now += 5000;
        assert_eq!(outbox.len(), rows, "every row makes one token per tick");
        outbox.clear();
    }
    assert_eq!(scheduler.stats().waiting, waiting, "nobody was admitted meanwhile");
    took.sort_unstable();
    let median_ns = took[ticks / 2];
    TickBench {
        rows,
        waiting,
        median_ns,
        p99_ns: took[ticks * 99 / 100],
        max_ns: took[ticks - 1],
        per_row_ns: median_ns as f64 / rows as f64,
    }
}

fn submit(number: usize, max_tokens: usize) -> Command {
    let prompt = (0..PROMPT).map(|i| (number * 7919 + i * 31) as Token % 100_000).collect();
    Command::Submit(Box::new(Request {
        allowance: u32::MAX,
        stop_tokens: vec![1, 2],
        sampling: Sampling::default(),
        tenant: number as u64 % 8,
        ..Request::greedy(RequestId(number as u64), prompt, max_tokens as u32)
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tiny_run_measures() {
        let bench = super::run(4, 10, 20);
        assert!(bench.median_ns > 0 && bench.p99_ns >= bench.median_ns);
    }
}
