//! Percentiles, throughput and goodput of a run, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Outcome, Seen};
use super::ms;

/// What a run came to. Times in milliseconds.
pub(super) struct Report {
    sent: usize,
    answered: usize,
    took_s: f64,
    prompt_tokens: u64,
    output_tokens: u64,
    good: usize,
    first: Spread,
    gap: Spread,
    whole: Spread,
}

/// Some points of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(outcomes: &[Outcome], took: Duration, slo_first: f64, slo_gap: f64) -> Self {
        let seen: Vec<&Seen> =
            outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        let good = |seen: &&&Seen| {
            ms(seen.first) <= slo_first
                && Spread::of(seen.gaps.iter().map(|t| ms(*t))).mean <= slo_gap
        };
        Self {
            sent: outcomes.len(),
            answered: seen.len(),
            took_s: took.as_secs_f64(),
            prompt_tokens: seen.iter().map(|seen| seen.prompt_tokens).sum(),
            output_tokens: seen.iter().map(|seen| seen.output_tokens).sum(),
            good: seen.iter().filter(good).count(),
            first: Spread::of(seen.iter().map(|seen| ms(seen.first))),
            gap: Spread::of(seen.iter().flat_map(|seen| &seen.gaps).map(|gap| ms(*gap))),
            whole: Spread::of(seen.iter().map(|seen| ms(seen.whole))),
        }
    }

    pub(super) fn answered(&self) -> usize {
        self.answered
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took_s.max(1e-9)
    }

    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let Self { sent, answered, took_s, good, .. } = *self;
        let _ = writeln!(out, "requests     {answered} of {sent} answered in {took_s:.2} s");
        let _ = writeln!(
            out,
            "throughput   {:.2} requests/s, {:.1} output tokens/s, {:.1} prompt tokens/s",
            self.per_second(answered as u64),
            self.per_second(self.output_tokens),
            self.per_second(self.prompt_tokens),
        );
        let _ = writeln!(
            out,
            "goodput      {:.2} requests/s ({good} within both limits)",
            self.per_second(good as u64),
        );
        let _ = writeln!(
            out,
            "\nms            {:>9} {:>9} {:>9} {:>9} {:>9}",
            "mean", "p50", "p90", "p99", "max"
        );
        for (name, spread) in
            [("first token", self.first), ("inter token", self.gap), ("whole", self.whole)]
        {
            let Spread { mean, p50, p90, p99, max } = spread;
            let _ =
                writeln!(out, "{name:<13} {mean:>9.2} {p50:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2}");
        }
        out
    }

    pub(super) fn json(&self, load: &Value) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "load": load,
            "sent": self.sent,
            "answered": self.answered,
            "errors": self.sent - self.answered,
            "took_s": self.took_s,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "requests_per_s": self.per_second(self.answered as u64),
            "output_tokens_per_s": self.per_second(self.output_tokens),
            "goodput_per_s": self.per_second(self.good as u64),
            "time_to_first_token_ms": self.first.json(),
            "inter_token_ms": self.gap.json(),
            "request_ms": self.whole.json(),
        })
    }
}

impl Spread {
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
    fn of(times: impl Iterator<Item = f64>) -> Self {
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        // Nearest rank: the smallest time that at least this share of requests met.
        let at = |per_cent: usize| {
            let rank = (times.len() * per_cent).div_ceil(100).max(1) - 1;
            times.get(rank).copied().unwrap_or(0.0)
        };
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        Self { mean, p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }

    fn json(self) -> Value {
        let Self { mean, p50, p90, p99, max } = self;
        json!({"mean": mean, "p50": p50, "p90": p90, "p99": p99, "max": max})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let spread = Spread::of((1..=100).rev().map(f64::from));
        assert_eq!(spread, Spread { mean: 50.5, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 });
        assert_eq!(Spread::of(std::iter::empty()).max, 0.0);
    }
}
