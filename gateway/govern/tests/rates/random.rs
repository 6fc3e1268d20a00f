//! Random schedules of two gateways against one local table: bound by bound, refusal by refusal
//! and figure by figure they say the same, and over any stretch of time they let in no more than
//! the rate allows.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use govern::Denied;
use govern::limit::shared::Settings;
use govern::limit::{Admitted, Limits, RateRule};
use govern::policy::Rates;
use hearth_tests::services::Redis;
use proptest::collection::vec;
use proptest::option::of as maybe;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::house::{gateway, rule, timed};

const CASES: u32 = 240;

/// One step of a schedule.
#[derive(Debug, Clone)]
enum Step {
    /// Milliseconds pass.
    Wait(i64),
    /// A gateway is asked; so many tokens, in percent of the smallest rate; by both rules, or by
    /// the outer one alone.
    Ask { gateway: usize, percent: u64, both: bool },
    /// One that runs ends, and has used so many tokens more.
    End { which: usize, more: u64 },
    /// One ends as soon as it was let in, and has used half.
    Short { gateway: usize, percent: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![0..20_i64, 0..30_000_i64].prop_map(Step::Wait),
        6 => (0..2_usize, 0..60_u64, any::<bool>())
            .prop_map(|(gateway, percent, both)| Step::Ask { gateway, percent, both }),
        2 => (any::<usize>(), 0..40_u64).prop_map(|(which, more)| Step::End { which, more }),
        1 => (0..2_usize, 0..60_u64)
            .prop_map(|(gateway, percent)| Step::Short { gateway, percent }),
    ]
}

fn bounds() -> impl Strategy<Value = Rates> {
    let rate = || prop_oneof![1..20_u32, 1..100_000_u32, any::<u32>().prop_map(|rate| rate.max(1))];
    (maybe(rate()), maybe(rate()), maybe(1..6_u32)).prop_map(
        |(requests_per_minute, tokens_per_minute, concurrent)| Rates {
            model: None,
            requests_per_minute,
            tokens_per_minute,
            concurrent,
        },
    )
}

/// One case: two gateways, what they should do, and who runs.
struct World {
    gateways: [Limits; 2],
    model: Limits,
    time: Arc<AtomicI64>,
    organisation: String,
    rates: [Rates; 2],
    running: Vec<(Admitted, Admitted, u64)>,
    /// When how many tokens were let in, as far as the inner rule counts them.
    admitted: Vec<(i64, u64)>,
}

impl World {
    async fn ask(&mut self, gateway: usize, percent: u64, both: bool) -> Option<usize> {
        let least = self.rates.iter().filter_map(|rates| rates.tokens_per_minute).min();
        let tokens = u64::from(least.unwrap_or(100)) * percent / 100;
        let named = |layer, key, rates| RateRule { layer, ..rule(key, rates) };
        let [outer, inner] = &self.rates;
        let all = [named("outer", "team:a", outer), named("inner", "key:a", inner)];
        let rules: &[RateRule<'_>] = if both { &all } else { &all[..1] };
        let now_us = self.time.load(Ordering::SeqCst) * 1000;
        let shared =
            self.gateways[gateway].admit_among(&self.organisation, rules, tokens, now_us).await;
        let expected = self.model.admit(rules, tokens, now_us);
        match (shared, expected) {
            (Ok(shared), Ok(expected)) => {
                assert_eq!(shared.request_rate(), expected.request_rate());
                assert_eq!(shared.token_rate(), expected.token_rate());
                self.running.push((shared, expected, tokens));
                if both {
                    self.admitted.push((now_us, tokens));
                }
                Some(self.running.len() - 1)
            }
            (Err(shared), Err(expected)) => {
                // A gateway whose own count says no does not ask how long all of them would, nor
                // whether a rule before that one says no.
                let layer = |denied: &Denied| denied.message.split(',').next().map(str::to_owned);
                if shared.rule == expected.rule && layer(&shared) == layer(&expected) {
                    assert!(shared.retry_after_s <= expected.retry_after_s, "{shared}");
                }
                None
            }
            (shared, expected) => panic!("{shared:?} in place of {expected:?}"),
        }
    }

    async fn end(&mut self, which: usize, used: impl FnOnce(u64) -> u64) {
        let (mut shared, mut expected, tokens) = self.running.swap_remove(which);
        let now_us = self.time.load(Ordering::SeqCst) * 1000;
        let used = used(tokens);
        shared.settle(used, now_us);
        expected.settle(used, now_us);
        drop((shared, expected));
        self.arrived().await;
    }

    /// Ends go to the server in their order: behind one more, the ones before it are there.
    async fn arrived(&self) {
        let one = Rates { concurrent: Some(1), ..Rates::default() };
        let last = [rule("key:last", &one)];
        for gateway in &self.gateways {
            for _ in 0..2 {
                while gateway.admit_among(&self.organisation, &last, 0, 0).await.is_err() {}
            }
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => {
                self.time.fetch_add(ms, Ordering::SeqCst);
            }
            Step::Ask { gateway, percent, both } => {
                self.ask(gateway, percent, both).await;
            }
            Step::End { which, more } if !self.running.is_empty() => {
                let which = which % self.running.len();
                self.end(which, |tokens| tokens + more).await;
            }
            Step::End { .. } => {}
            Step::Short { gateway, percent } => {
                if let Some(which) = self.ask(gateway, percent, false).await {
                    self.end(which, |tokens| tokens / 2).await;
                }
            }
        }
    }

    /// Over any stretch of time: a full bucket, and what drains in that time.
    fn check(&self) {
        const MINUTE_US: i128 = 60_000_000;
        let Rates { requests_per_minute, tokens_per_minute, .. } = self.rates[1];
        for (first, (begin, _)) in self.admitted.iter().enumerate() {
            let (mut requests, mut tokens) = (0, 0);
            for (end, cost) in &self.admitted[first..] {
                requests += 1;
                tokens += i128::from(*cost);
                let minute = MINUTE_US + i128::from(end - begin);
                let fits = |sum: i128, rate: Option<u32>| {
                    rate.is_none_or(|rate| sum * MINUTE_US <= i128::from(rate) * minute)
                };
                assert!(fits(requests, requests_per_minute), "{requests} requests");
                assert!(fits(tokens, tokens_per_minute), "{tokens} tokens");
            }
        }
    }
}

async fn run(url: &str, case: u32, rates: [Rates; 2], steps: Vec<Step>) {
    // The year 2200: times as large as they get.
    let time = Arc::new(AtomicI64::new(7_258_118_400_000));
    // Nobody renews by a clock that jumps.
    let settings = Settings { hold: Duration::from_hours(24), ..timed(url, &time) };
    let gateways = [gateway(&settings).await, gateway(&settings).await];
    let organisation = format!("org_{case}");
    let mut world = World {
        gateways,
        model: Limits::default(),
        time,
        organisation,
        rates,
        running: Vec::new(),
        admitted: Vec::new(),
    };
    for step in steps {
        world.take(step).await;
    }
    world.check();
}

#[test]
fn two_gateways_let_in_what_one_table_would() {
    let (redis, runtime) = (Redis::start(), Runtime::new().expect("a runtime"));
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() };
    let case = Cell::new(0);
    let mut runner = TestRunner::new(config);
    let cases = (bounds(), bounds(), vec(step(), 1..60));
    let result = runner.run(&cases, |(outer, inner, steps)| {
        case.set(case.get() + 1);
        runtime.block_on(run(&redis.url(), case.get(), [outer, inner], steps));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
