//! How much at once and per minute: one table of counters for all layers of the tree. A request is
//! let in by all of them or by none, under one lock. Local to this process, and lost with it: a
//! minute later nobody could tell. Where several gateways share their rates ([`shared`]), a request
//! passes both counts.
//!
//! Microseconds come in as an argument and should be those of a clock that is never set: while it
//! shows a time before the latest that was seen, no rate recovers.

pub mod gcra;
pub mod shared;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use gcra::{Gcra, Remaining};

use crate::policy::{Rates, pattern};
use crate::{Denied, Rule};
use shared::{Answer, Claim, Shared};
use table::{Held, Refusal, Table};

/// One bound that a request has to pass.
#[derive(Debug, Clone, Copy)]
pub struct RateRule<'a> {
    /// What it counts for, such as the text of the layer's scope.
    pub key: &'a str,
    /// Which of that layer's rates it is, from 0.
    pub index: usize,
    /// The bounds.
    pub rates: &'a Rates,
    /// The layer's name for people: `team research`.
    pub layer: &'a str,
}

/// Those of a layer's rates that count requests to a model.
pub fn rules<'a>(
    key: &'a str,
    layer: &'a str,
    rates: &'a [Rates],
    model: &str,
) -> impl Iterator<Item = RateRule<'a>> {
    let all = rates.iter().enumerate();
    all.filter(move |(_, rates)| {
        rates.model.as_deref().is_none_or(|wanted| pattern::matches(wanted, model))
    })
    .map(move |(index, rates)| RateRule { key, index, rates, layer })
}

/// What is left of the tightest of the rates that a request counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// So many in a minute.
    pub limit: u32,
    /// So many more may come at once.
    pub remaining: u64,
    /// Milliseconds until all of them may.
    pub reset_ms: u64,
}

/// The counters. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    table: Arc<Mutex<Table>>,
    shared: Option<Shared>,
}

impl Limits {
    /// Counters that other gateways count in too.
    #[must_use]
    pub fn among(shared: Shared) -> Self {
        Self { table: Arc::default(), shared: Some(shared) }
    }

    /// Where other gateways count too.
    #[must_use]
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// As [`Limits::admit`], by what all gateways have let in. Waits a moment for their common
    /// counters; where those do not answer, this gateway's own decide.
    ///
    /// # Errors
    /// The first rule that says no, with the time after which it says yes.
    pub async fn admit_among(
        &self,
        organisation: &str,
        rules: &[RateRule<'_>],
        tokens: u64,
        now_us: i64,
    ) -> Result<Admitted, Denied> {
        let mut admitted = self.admit(rules, tokens, now_us)?;
        let Some(shared) = self.shared.as_ref().filter(|_| !rules.is_empty()) else {
            return Ok(admitted);
        };
        match shared.admit(organisation, rules, tokens).await {
            Answer::Admitted(claim, request_rate, token_rate) => {
                (admitted.request_rate, admitted.token_rate) = (request_rate, token_rate);
                admitted.claim = Some(claim);
            }
            Answer::Away(claim) => admitted.claim = Some(claim),
            Answer::Refused(index, refusal) => {
                let mut table = self.table();
                for held in admitted.held.drain(..) {
                    table.undo(&held, tokens);
                }
                return Err(denied(&rules[index], &refusal, tokens));
            }
        }
        Ok(admitted)
    }

    /// Lets a request in that may use up to `tokens`, if all rules do. It counts in all of them
    /// then, and else in none. Of this process's counters alone.
    ///
    /// # Errors
    /// The first rule that says no, with the time after which it says yes.
    pub fn admit(
        &self,
        rules: &[RateRule<'_>],
        tokens: u64,
        now_us: i64,
    ) -> Result<Admitted, Denied> {
        let mut admitted = Admitted {
            limits: self.clone(),
            held: Vec::with_capacity(rules.len()),
            tokens,
            request_rate: None,
            token_rate: None,
            claim: None,
        };
        if rules.is_empty() {
            return Ok(admitted);
        }
        let mut table = self.table();
        for rule in rules {
            match table.admit(rule, tokens, now_us) {
                Ok(taken) => {
                    admitted.held.push(taken.held);
                    admitted.request_rate = tighter(admitted.request_rate, taken.requests);
                    admitted.token_rate = tighter(admitted.token_rate, taken.tokens);
                }
                Err(refusal) => {
                    for held in admitted.held.drain(..) {
                        table.undo(&held, tokens);
                    }
                    return Err(denied(rule, &refusal, tokens));
                }
            }
        }
        Ok(admitted)
    }

    /// How many rates are counted at the moment. Those that nothing is left of are forgotten as
    /// the table grows.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.table().counted()
    }

    /// Forgets what nothing is left of.
    pub fn sweep(&self, now_us: i64) {
        self.table().sweep(now_us);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code that holds the lock leaves a counter half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let in. It runs until this is dropped.
#[derive(Debug)]
#[must_use = "the request counts as running only until this is dropped"]
pub struct Admitted {
    limits: Limits,
    held: Vec<Held>,
    /// What it counts for in the rates of tokens.
    tokens: u64,
    request_rate: Option<Standing>,
    token_rate: Option<Standing>,
    /// Where other gateways see it.
    claim: Option<Claim>,
}

impl Admitted {
    /// The tightest rate of requests, this one counted; `None` where none is bounded.
    #[must_use]
    pub fn request_rate(&self) -> Option<Standing> {
        self.request_rate
    }

    /// The tightest rate of tokens, all that this request may use counted.
    #[must_use]
    pub fn token_rate(&self) -> Option<Standing> {
        self.token_rate
    }

    /// Counts the tokens that were really used in place of those asked for. May be called again.
    /// A request that is dropped without it keeps counting for all. Other gateways hear of it when
    /// this is dropped.
    pub fn settle(&mut self, actual_tokens: u64, now_us: i64) {
        let before = std::mem::replace(&mut self.tokens, actual_tokens);
        if let Some(claim) = &mut self.claim {
            claim.used(actual_tokens);
        }
        if before == actual_tokens || self.held.is_empty() {
            return;
        }
        let mut table = self.limits.table();
        for held in &self.held {
            table.correct(held, before, actual_tokens, now_us);
        }
    }

    /// As if the request had not been let in. Gateways that share their rates keep it counted as a
    /// request.
    pub fn withdraw(mut self, now_us: i64) {
        self.settle(0, now_us);
        let mut table = self.limits.table();
        for held in self.held.drain(..) {
            table.undo(&held, 0);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let mut table = self.limits.table();
        for held in &self.held {
            table.leave(held);
        }
    }
}

/// The one of which less is left; of two alike the one that takes longer to recover.
fn tighter(one: Option<Standing>, other: Option<Standing>) -> Option<Standing> {
    let slack = |standing: &Standing| (standing.remaining, u64::MAX - standing.reset_ms);
    one.into_iter().chain(other).min_by_key(slack)
}

fn denied(rule: &RateRule<'_>, refusal: &Refusal, tokens: u64) -> Denied {
    let RateRule { layer, rates, .. } = rule;
    let whose = rates.model.as_ref().map_or_else(String::new, |model| format!(" to {model}"));
    let seconds = |after_us: u64| after_us.div_ceil(1_000_000).max(1);
    match *refusal {
        Refusal::Concurrent { limit } => {
            let text = format!("{limit} requests{whose} run, as many as may at once");
            Denied::new(Rule::Concurrency, format!("{layer}, concurrent: {text}"))
        }
        Refusal::Requests { limit, after_us } => {
            let text = format!("at most {limit} requests{whose} a minute");
            let said = format!("{layer}, requests_per_minute: {text}");
            let Some(after) = after_us.map(seconds) else {
                return Denied::new(Rule::RequestRate, said);
            };
            let said = format!("{said}; the next may come in {after} s");
            Denied::new(Rule::RequestRate, said).after(after)
        }
        Refusal::Tokens { limit, after_us } => {
            let text = format!("{tokens} tokens are asked for: at most {limit} a minute{whose}");
            let said = format!("{layer}, tokens_per_minute: {text}");
            let Some(after) = after_us.map(seconds) else {
                let said = format!("{said}, so they never fit; ask for fewer");
                return Denied::new(Rule::TokenRate, said);
            };
            Denied::new(Rule::TokenRate, format!("{said}; they fit in {after} s")).after(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rates(json: &str) -> Rates {
        serde_json::from_str(json).expect(json)
    }

    fn rule<'a>(key: &'a str, rates: &'a Rates) -> RateRule<'a> {
        RateRule { key, index: 0, rates, layer: "team research" }
    }

    fn standing(limit: u32, remaining: u64, reset_ms: u64) -> Option<Standing> {
        Some(Standing { limit, remaining, reset_ms })
    }

    #[track_caller]
    fn refused(result: Result<Admitted, Denied>, rule: Rule, said: &str, after: Option<u64>) {
        let denied = result.expect_err(said);
        assert_eq!((denied.rule, denied.retry_after_s), (rule, after));
        assert_eq!(denied.message, format!("team research, {said}"));
    }

    #[test]
    fn refusals_name_the_bound_and_the_time() {
        let limits = Limits::default();
        let bounds = rates(r#"{"requests_per_minute": 7}"#);
        let admit = |now_us| limits.admit(&[rule("team:a", &bounds)], 0, now_us);
        let all: Vec<_> = (0..7).map(|_| admit(0).expect("seven fit")).collect();
        assert_eq!(all[6].request_rate(), standing(7, 0, 60_000));
        assert_eq!(all[6].token_rate(), None);
        let said = "requests_per_minute: at most 7 requests a minute; the next may come in 9 s";
        refused(admit(0), Rule::RequestRate, said, Some(9));
        // 60 s / 7 = 8.571428571 s
        assert!(admit(8_571_428).is_err());
        assert!(admit(8_571_429).is_ok());

        let bounds = rates(r#"{"model": "qwen*", "tokens_per_minute": 600}"#);
        let admit = |tokens, now_us| limits.admit(&[rule("team:a", &bounds)], tokens, now_us);
        let first = admit(600, 0).expect("it fits");
        assert_eq!(first.token_rate(), standing(600, 0, 60_000));
        let said = "tokens_per_minute: 5 tokens are asked for: at most 600 a minute to qwen*; \
                    they fit in 1 s";
        refused(admit(5, 0), Rule::TokenRate, said, Some(1));
        let said = "tokens_per_minute: 601 tokens are asked for: at most 600 a minute to qwen*, \
                    so they never fit; ask for fewer";
        refused(admit(601, 0), Rule::TokenRate, said, None);

        let bounds = rates(r#"{"concurrent": 1}"#);
        let admit = || limits.admit(&[rule("team:b", &bounds)], 0, 0);
        let running = admit().expect("one fits");
        let said = "concurrent: 1 requests run, as many as may at once";
        refused(admit(), Rule::Concurrency, said, None);
        drop(running);
        assert!(admit().is_ok());
    }

    #[test]
    fn all_rules_or_none_count() {
        let limits = Limits::default();
        let wide =
            rates(r#"{"requests_per_minute": 10, "tokens_per_minute": 100, "concurrent": 1}"#);
        let narrow = rates(r#"{"requests_per_minute": 10, "tokens_per_minute": 20}"#);
        let both = [rule("org:a", &wide), rule("key:a", &narrow)];
        assert!(limits.admit(&both, 21, 0).is_err());
        let admitted = limits.admit(&both, 15, 0).expect("nothing was counted");
        assert_eq!(admitted.token_rate(), standing(20, 5, 45_000));
        assert_eq!(admitted.request_rate(), standing(10, 9, 6000));
        // The same rule twice counts twice, and is taken back twice.
        drop(admitted);
        let twice = rates(r#"{"requests_per_minute": 1}"#);
        let twice = [rule("key:b", &twice), rule("key:b", &twice)];
        assert!(limits.admit(&twice, 0, 0).is_err());
        assert!(limits.admit(&twice[..1], 0, 0).is_ok());
    }

    #[test]
    fn settling_counts_what_was_used() {
        let limits = Limits::default();
        let bounds = rates(r#"{"tokens_per_minute": 600}"#);
        let left = |now_us| {
            let admitted = limits.admit(&[rule("key:a", &bounds)], 0, now_us).expect("0 fit");
            admitted.token_rate().expect("a rate").remaining
        };
        let mut admitted = limits.admit(&[rule("key:a", &bounds)], 500, 0).expect("it fits");
        assert_eq!(left(0), 100);
        admitted.settle(200, 0);
        assert_eq!(left(0), 400);
        // More than was asked for: what comes next waits for it, however long nothing came.
        admitted.settle(1100, 90 * SECOND);
        drop(admitted);
        let early = limits.admit(&[rule("key:a", &bounds)], 0, 90 * SECOND);
        assert_eq!(early.map_err(|denied| denied.retry_after_s).err(), Some(Some(30)));
        assert_eq!(left(130 * SECOND), 100);
        let kept = limits.admit(&[rule("key:a", &bounds)], 100, 130 * SECOND).expect("it fits");
        drop(kept);
        assert_eq!(left(130 * SECOND), 0);
    }

    #[test]
    fn another_rate_keeps_the_share() {
        let limits = Limits::default();
        let left = |json: &str, tokens| {
            let bounds = rates(json);
            let admitted = limits.admit(&[rule("key:a", &bounds)], tokens, 0).expect("it fits");
            admitted.token_rate().expect("a rate").remaining
        };
        assert_eq!(left(r#"{"tokens_per_minute": 1000}"#, 750), 250);
        assert_eq!(left(r#"{"tokens_per_minute": 100}"#, 0), 25);
        assert_eq!(left(r#"{"tokens_per_minute": 4000}"#, 0), 1000);
    }

    #[test]
    fn rates_count_the_models_that_they_name() {
        let limits = Limits::default();
        let own: Vec<Rates> =
            ["{\"requests_per_minute\": 5}", "{\"model\": \"qwen*\", \"concurrent\": 1}"]
                .map(rates)
                .into();
        let of = |model: &str| rules("key:a", "key ci", &own, model).collect::<Vec<_>>();
        let indices = |model: &str| of(model).iter().map(|rule| rule.index).collect::<Vec<_>>();
        assert_eq!((indices("qwen3"), indices("llama")), (vec![0, 1], vec![0]));
        let first = limits.admit(&of("qwen3"), 0, 0).expect("it fits");
        let denied = limits.admit(&of("qwen3"), 0, 0).expect_err("one at once");
        assert!(denied.message.contains("1 requests to qwen* run"), "{denied}");
        let second = limits.admit(&of("llama"), 0, 0).expect("it fits");
        assert_eq!(second.request_rate().map(|rate| rate.remaining), Some(3));
        drop(first);
        // Two rates of the same models count apart.
        let twice = [&own[0], &own[0]].map(Rates::clone);
        let both: Vec<_> = rules("key:b", "key ci", &twice, "llama").collect();
        let third = limits.admit(&both, 0, 0).expect("it fits");
        assert_eq!(third.request_rate().map(|rate| rate.remaining), Some(4));
    }

    #[test]
    fn counters_of_nothing_are_forgotten() {
        let limits = Limits::default();
        let bounds = rates(r#"{"requests_per_minute": 60, "concurrent": 9}"#);
        let kept = limits.admit(&[rule("key:kept", &bounds)], 0, 0).expect("it fits");
        for key in 0..100_000 {
            let key = format!("key:{key}");
            // Each is over after a second: never are more than 100 in use.
            drop(limits.admit(&[rule(&key, &bounds)], 0, key_time(&key)).expect("it fits"));
        }
        assert!(limits.counted() <= 1200, "{}", limits.counted());
        limits.sweep(i64::MAX);
        assert_eq!(limits.counted(), 1);
        drop(kept);
        limits.sweep(i64::MAX);
        assert_eq!(limits.counted(), 0);
    }

    fn key_time(key: &str) -> i64 {
        key.trim_start_matches("key:").parse::<i64>().expect("a number") * SECOND / 100
    }
}
