//! Answers that are given again, and what they take.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::register;

/// The series, without labels and all the same not shown before there is a cache.
pub(super) struct CacheVecs {
    answers: IntCounterVec,
    stored: IntCounterVec,
    entries: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl CacheVecs {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels);
            let counter = counter.expect("a valid metric");
            register(registry, counter.clone());
            counter
        };
        let gauge = |name, help| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[]).expect("a valid metric");
            register(registry, gauge.clone());
            gauge
        };
        Self {
            answers: counter(
                "hearth_answer_cache_answers_total",
                "Answers, by what the cache had for them.",
                &["result"],
            ),
            stored: counter(
                "hearth_answer_cache_stored_total",
                "Answers that this process has made and kept.",
                &[],
            ),
            entries: gauge("hearth_answer_cache_entries", "Answers in memory."),
            bytes: gauge("hearth_answer_cache_bytes", "Memory that these take."),
        }
    }

    /// Shown from now on.
    pub(super) fn shown(&self) -> CacheMetrics {
        let answers = |result| self.answers.with_label_values(&[result]);
        CacheMetrics {
            hit: answers("hit"),
            shared: answers("shared"),
            joined: answers("joined"),
            miss: answers("miss"),
            off: answers("off"),
            stored: self.stored.with_label_values::<&str>(&[]),
            entries: self.entries.with_label_values::<&str>(&[]),
            bytes: self.bytes.with_label_values::<&str>(&[]),
        }
    }
}

/// What a cache counts.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Answered from memory.
    pub hit: IntCounter,
    /// Answered with what another gateway has left.
    pub shared: IntCounter,
    /// Read along with the same answer under way.
    pub joined: IntCounter,
    /// Made anew.
    pub miss: IntCounter,
    /// Neither looked up nor kept.
    pub off: IntCounter,
    /// Made here and kept.
    pub stored: IntCounter,
    entries: IntGauge,
    bytes: IntGauge,
}

impl CacheMetrics {
    /// So many answers are in memory, and take so many bytes.
    pub fn holds(&self, entries: usize, bytes: usize) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
