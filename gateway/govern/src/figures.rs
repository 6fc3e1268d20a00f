//! How the books are kept, for graphs: what answers wait for, how far the database is behind, and
//! who was told no.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::Denied;

/// Seconds of a flush: a disk whose cache is safe takes 50 us, one that turns 10 ms.
const FLUSH: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0,
];

/// Seconds of a commit.
const COMMIT: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Cheap to copy; copies count together.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Of the journal's ends.
    pub(crate) flushes: Histogram,
    /// Of the writer.
    pub(crate) commits: Histogram,
    pub(crate) failures: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) open: IntGauge,
    denied: IntCounterVec,
}

impl Figures {
    pub(crate) fn new(flushes: Histogram) -> Self {
        Self {
            flushes,
            commits: histogram(
                "hearth_ledger_commit_seconds",
                "To bring what has ended into the database, many at a time.",
                COMMIT,
            ),
            failures: IntCounter::new(
                "hearth_ledger_commit_failures_total",
                "Commits that the database did not take. They are tried again until it does.",
            )
            .expect("a valid metric"),
            waiting: IntGauge::new(
                "hearth_ledger_waiting",
                "Ends of requests and lines of the audit that the database does not have yet.",
            )
            .expect("a valid metric"),
            open: IntGauge::new(
                "hearth_operations_open",
                "Paid requests that are open, or that the database does not have yet.",
            )
            .expect("a valid metric"),
            denied: IntCounterVec::new(
                Opts::new(
                    "hearth_requests_denied_total",
                    "Requests that a key, a policy, a rate or a budget does not allow, by rule.",
                ),
                &["rule"],
            )
            .expect("a valid metric"),
        }
    }

    /// Somebody was told no.
    pub(crate) fn denied(&self, denied: &Denied) {
        self.denied.with_label_values(&[denied.rule.name()]).inc();
    }

    /// For a registry.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Self { flushes, commits, failures, waiting, open, denied } = self.clone();
        vec![
            Box::new(flushes),
            Box::new(commits),
            Box::new(failures),
            Box::new(waiting),
            Box::new(open),
            Box::new(denied),
        ]
    }
}

/// Of how long the disk takes.
pub(crate) fn flushes() -> Histogram {
    histogram(
        "hearth_journal_flush_seconds",
        "To bring ends of requests to this machine's disk, several at a time. Answers wait for it.",
        FLUSH,
    )
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    Histogram::with_opts(opts).expect("a valid metric")
}
