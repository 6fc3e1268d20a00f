//! What the scheduler tells about itself: plain numbers for metrics and for health checks.
//! Counters only grow; gauges are true at the end of the last tick.

use crate::types::Micros;

/// Coefficients of the fitted step time, in microseconds per unit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CostCoefficients {
    /// Per step.
    pub step_us: f64,
    /// Per prompt token.
    pub prefill_token_us: f64,
    /// Per draft.
    pub draft_us: f64,
    /// Per row.
    pub row_us: f64,
    /// Per thousand positions of context that the rows attend to.
    pub context_kilotoken_us: f64,
}

/// A snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Gauge: requests alive.
    pub requests: usize,
    /// Gauge: sequences (choices) that hold a row.
    pub running: usize,
    /// Gauge: sequences that wait for a row, preempted ones included.
    pub waiting: usize,
    /// Gauge: steps launched and not collected.
    pub in_flight: usize,
    /// Gauge: pages of the pool.
    pub pages_total: usize,
    /// Gauge: pages with nothing in them.
    pub pages_free: usize,
    /// Gauge: pages that only the prefix cache keeps.
    pub pages_cached: usize,
    /// Gauge: pages that sequences hold.
    pub pages_held: usize,
    /// Counter: tokens looked up in the prefix cache.
    pub prefix_tokens_queried: u64,
    /// Counter: of these, found.
    pub prefix_tokens_hit: u64,
    /// Counter: cached pages given up for new ones.
    pub evictions: u64,
    /// Counter: sequences that lost their pages and are computed again.
    pub preemptions: u64,
    /// Counter: steps collected well.
    pub steps: u64,
    /// Counter: steps that failed.
    pub step_faults: u64,
    /// Counter: positions computed in rows of several known tokens.
    pub tokens_prefill: u64,
    /// Counter: positions computed in rows of one known token.
    pub tokens_decode: u64,
    /// Counter: positions computed for drafts.
    pub tokens_drafted: u64,
    /// Counter: of these, drawn.
    pub tokens_accepted: u64,
    /// Counter: time the device worked.
    pub device_us: Micros,
    /// Gauge: prompt tokens that the last step was allowed.
    pub prefill_budget: usize,
    /// Gauge: what a step is thought to cost.
    pub cost: CostCoefficients,
}
