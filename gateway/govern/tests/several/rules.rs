//! How money is shared while all live.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use govern::entity::{Budget, Limit, Raise};
use govern::governor::Clock;
use govern::store::documents::Edit;
use govern::{Money, Rule, Sharing};
use hearth_tests::services::{Postgres, Stop, postgres};
use sqlx::Row as _;

use super::gateway::{Gateway, OUTPUT, admit, generate, quick, wait};
use super::ledger::check_sums;
use super::shop::{BEGIN, Folder, Shop, generate as made_at_once, limit};

const SECOND: Duration = Duration::from_secs(1);

/// Two gateways, and a budget that both know.
pub(super) struct Pair {
    pub(super) a: Gateway,
    pub(super) b: Gateway,
    pub(super) budget: Budget,
    pub(super) clock: Arc<AtomicI64>,
    pub(super) folder: Folder,
}

pub(super) fn pair(name: &str, nano: i64) -> Pair {
    pair_of(name, nano, &postgres::shared().fresh(), quick())
}

fn pair_of(name: &str, nano: i64, url: &str, sharing: Sharing) -> Pair {
    let folder = Folder::new(&format!("several-{name}"));
    let clock = Arc::new(AtomicI64::new(BEGIN));
    let set = Clock::Set(Arc::clone(&clock));
    let a = Gateway::new(&folder.0, "a", url, &set, sharing.clone());
    let b = Gateway::new(&folder.0, "b", url, &set, sharing);
    let budget = a.shop().budget(vec![limit(nano)]);
    a.put(vec![Edit::put(&budget)]).expect("an edit");
    let pair = Pair { a, b, budget, clock, folder };
    pair.both_know();
    pair
}

impl Pair {
    /// Both gateways know the budget as it is in the test.
    pub(super) fn both_know(&self) {
        for gateway in [&self.a, &self.b] {
            wait(SECOND, "the budget is known", || {
                let directory = gateway.governor().directory();
                directory.budget(&self.budget.id).is_some_and(|known| **known == self.budget)
            });
        }
    }

    /// The renewals that follow an edit are over, so that nothing is given back by them later.
    fn both_said_so(&self) {
        let sql = "SELECT COUNT(*) FROM gateways, counters \
                   WHERE counters.name = 'revision' AND revision < value";
        wait(5 * SECOND, "both have said that they know", || {
            let row = self.a.run(sqlx::query(sql).fetch_one(self.a.governor().store().read()));
            row.expect("a count").get::<i64, _>(0) == 0
        });
    }

    fn check(&self, spent: i64) {
        self.a.run(self.a.governor().flush());
        self.b.run(self.b.governor().flush());
        assert_eq!(self.a.ledger(), spent);
        self.a.run(check_sums(self.a.governor()));
    }
}

/// Serves until the budget has said no three times in a row, and returns what that cost.
async fn spend(shop: Arc<Shop>, seed: u32) -> i64 {
    let (mut cost, mut refused) = (0, 0);
    for count in seed.. {
        match admit(&shop, 0, 1 + count * 37 % 400).await {
            Ok(operation) => {
                let made = generate(&shop.governor, &operation, 1 + count * 37 % 400).await;
                tokio::task::yield_now().await;
                operation.answered(made.into(), 0);
                cost += operation.finish().cost.0;
                refused = 0;
            }
            Err(denied) if denied.rule == Rule::Budget => refused += 1,
            // Too many questions at once; never anything else.
            Err(denied) => assert_eq!(denied.rule, Rule::Unavailable, "{denied}"),
        }
        if refused == 3 {
            break;
        }
    }
    cost
}

#[test]
fn two_gateways_spend_a_budget_to_its_last_token() {
    const LIMIT: i64 = 1_000_003;
    let pair = pair("last", LIMIT);
    let tasks: Vec<_> = [&pair.a, &pair.b]
        .into_iter()
        .flat_map(|gateway| {
            (0..4).map(|seed| gateway.runtime().spawn(spend(Arc::clone(gateway.shop()), seed)))
        })
        .collect();
    let mut cost: i64 = tasks.into_iter().map(|task| pair.a.run(task).expect("no panic")).sum();
    assert!(cost <= LIMIT, "{cost}");
    // What lies idle at the other one comes when it is asked for.
    while let Ok(operation) = pair.a.admit(0, 1) {
        pair.a.generate(&operation, 1);
        operation.answered(1, 0);
        cost += operation.finish().cost.0;
    }
    assert!(cost <= LIMIT && cost + OUTPUT as i64 > LIMIT, "{cost} of {LIMIT}");
    assert_eq!(pair.b.admit(0, 1).map_err(|denied| denied.rule).err(), Some(Rule::Budget));
    pair.check(cost);
}

/// No renewal and no look is near: gateways do what they are told to.
fn rare() -> Sharing {
    Sharing {
        lease: Duration::from_mins(5),
        renew: Duration::from_mins(1),
        poll: Duration::from_mins(1),
        ..quick()
    }
}

/// Only the wish makes the other one give back.
#[test]
fn idle_money_comes_to_where_it_is_wanted() {
    let pair = pair_of("idle", 700_000, &postgres::shared().fresh(), rare());
    pair.both_said_so();
    let spent = pair.a.serve(10);
    pair.a.run(pair.a.governor().flush());
    // A quarter of it, less what was spent: that is in the ledger now.
    assert_eq!(pair.a.slices(&pair.budget), [175_000 - spent]);
    let begun = Instant::now();
    let whole = pair.b.admit_within(99_990, SECOND);
    let made = pair.b.generate(&whole, 99_990);
    // A token or some thousand: it holds in steps, and each may have to wait for the other.
    whole.answered(made.into(), 0);
    let mut cost = whole.finish().cost.0 + spent;
    while let Ok(operation) = pair.b.admit(0, 60) {
        let made = pair.b.generate(&operation, 60);
        operation.answered(made.into(), 0);
        cost += operation.finish().cost.0;
    }
    assert!(cost + OUTPUT as i64 > 700_000, "{cost}");
    assert!(begun.elapsed() < 15 * SECOND, "{:?}", begun.elapsed());
    pair.check(cost);
}

#[test]
fn what_is_not_needed_is_given_back_at_the_next_renewal() {
    let pair = pair("renewal", 700_000);
    let spent = pair.a.serve(10);
    wait(SECOND, "given back", || pair.a.slices(&pair.budget).is_empty());
    // And the other one, which had nothing to do with it, shows what was spent.
    wait(SECOND, "seen", || pair.b.shop().standing(&pair.budget.id) == (spent, 0));
    // A gateway alone keeps what it has: nobody could want it.
    let Pair { a, b, budget, folder: _folder, .. } = pair;
    b.close();
    a.serve(10);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(a.slices(&budget).len(), 1);
    a.close();
}

#[test]
fn one_that_closes_leaves_nothing_behind() {
    let Pair { a, b, folder: _folder, .. } = pair("close", 7_000);
    let spent = a.serve(100);
    a.close();
    let operation = b.admit(0, 1_000).expect("all that is left is free at once");
    assert_eq!(spent, 700);
    assert_eq!(b.generate(&operation, 1_000), 900);
    drop(operation);
}

/// What running requests hold at one gateway is set aside before another one is granted anything.
#[test]
fn a_budget_made_elsewhere_counts_what_runs_here() {
    let Pair { a, b, mut budget, folder: _folder, .. } = pair("runs", 1);
    a.put(vec![Edit::delete(&budget)]).expect("an edit");
    wait(SECOND, "gone", || b.governor().directory().budget(&budget.id).is_none());
    let running = b.admit(0, 1_000).expect("nobody bounds it");
    budget.limits[0].nano_usd = Money(7_035);
    a.put(vec![Edit::put(&budget)]).expect("an edit");
    let second = a.admit_within(1_000, SECOND);
    assert_eq!(a.generate(&second, u32::MAX), 5, "35 are left");
    assert!(a.admit(0, 1).is_err_and(|denied| denied.rule == Rule::Budget));
    b.generate(&running, 7);
    running.answered(7, 0);
    assert_eq!(running.finish().cost, Money(49));
    // What the first gave back.
    let third = a.admit_within(900, SECOND);
    assert!(third.allowance() >= 64);
}

/// Two requests that nobody bounded hold more than a budget that is made then allows. What one of
/// them gives back is not its gateway's to spend again, as long as the other one's counts.
#[test]
fn what_is_held_above_a_budget_is_nobodys() {
    let Pair { a, b, mut budget, folder: _folder, .. } = pair("above", 1);
    a.put(vec![Edit::delete(&budget)]).expect("an edit");
    wait(SECOND, "gone", || b.governor().directory().budget(&budget.id).is_none());
    let [at_a, at_b] = [&a, &b].map(|gateway| gateway.admit(0, 1_000).expect("unbounded"));
    budget.limits[0].nano_usd = Money(9_100);
    a.put(vec![Edit::put(&budget)]).expect("an edit");
    wait(SECOND, "both holds count", || b.slices(&budget) == [7_000, 7_000]);
    assert!(b.admit(0, 1).is_err());
    drop(at_b);
    let mut made = 0;
    while let Ok(operation) = b.admit(0, 400) {
        made += b.generate(&operation, 400);
        operation.answered(made.into(), 0);
        std::mem::forget(operation);
    }
    assert_eq!(made, 300, "9100 less the 7000 that are held elsewhere");
    drop(at_a);
}

#[test]
fn a_budget_that_was_lowered_grants_nothing_above_it() {
    let mut pair = pair("lower", 70_000);
    let spent = pair.a.serve(5_000);
    let idle = pair.b.admit(0, 100).expect("its share");
    assert_eq!(spent, 35_000);
    pair.budget.limits[0].nano_usd = Money(36_400);
    pair.a.put(vec![Edit::put(&pair.budget)]).expect("an edit");
    pair.both_know();
    // 1400 are left, and 700 of them are held: 100 tokens.
    let made = pair.b.generate(&idle, u32::MAX);
    assert_eq!(made, 100);
    let rest = pair.b.admit_within(4_000, SECOND);
    let made = pair.b.generate(&rest, u32::MAX);
    assert!(made <= 100, "{made}");
    drop((idle, rest));
    pair.budget.limits[0].nano_usd = Money(35_000);
    pair.a.put(vec![Edit::put(&pair.budget)]).expect("an edit");
    pair.both_know();
    for gateway in [&pair.a, &pair.b] {
        assert!(gateway.admit(0, 1).is_err_and(|denied| denied.rule == Rule::Budget));
    }
}

/// Slices that were granted while a raise held are void when it is over, at each gateway.
#[test]
fn a_raise_ends_everywhere() {
    let mut pair = pair_of("raise", 7_000, &postgres::shared().fresh(), rare());
    let until = BEGIN + 60_000;
    let raise = Raise { nano_usd: Money(63_000), from: BEGIN, until, reason: "a fair".to_owned() };
    pair.budget.limits[0] = Limit { raises: vec![raise], ..limit(7_000) };
    pair.a.put(vec![Edit::put(&pair.budget)]).expect("an edit");
    pair.both_know();
    // Before the other one spends: this one does not know of that.
    pair.both_said_so();
    drop(pair.b.admit(0, 1_000).expect("it is leased"));
    let spent = pair.a.serve(1_500);
    assert_eq!(spent, 10_500, "more than without the raise");
    assert!(pair.b.admit(0, 1).is_ok());
    pair.clock.store(until, Ordering::SeqCst);
    for gateway in [&pair.a, &pair.b] {
        assert!(gateway.admit(0, 1).is_err_and(|denied| denied.rule == Rule::Budget));
    }
    pair.clock.store(until - 1, Ordering::SeqCst);
    assert!(pair.b.admit(0, 1).is_ok());
}

/// The day's slices are of the day: another window has its own.
#[test]
fn each_window_has_slices_of_its_own() {
    let mut pair = pair("window", 1);
    pair.budget.limits[0] = Limit { period: govern::budget::window::Period::Day, ..limit(7_000) };
    pair.a.put(vec![Edit::put(&pair.budget)]).expect("an edit");
    pair.both_know();
    let running = pair.a.admit(0, 600).expect("money of today");
    pair.clock.fetch_add(86_400_000, Ordering::SeqCst);
    let tomorrow = pair.b.admit_within(1_000, SECOND);
    assert!(tomorrow.allowance() > 0);
    assert_eq!(pair.a.generate(&running, 600), 600, "it pays with its own day's money");
    running.answered(600, 0);
    assert_eq!(running.finish().cost, Money(4_200));
    drop(tomorrow);
    assert_eq!(pair.b.serve(200) + pair.a.serve(200), 2_800);
}

/// Known keys go on within their leases, and nothing is a 401 or a 429 that is not one.
#[test]
fn without_the_database_leases_hold_until_they_end() {
    let server = Postgres::start();
    let sharing = Sharing { lease: 6 * SECOND, ..quick() };
    let pair = pair_of("outage", 70_000_000, &server.fresh(), sharing);
    let mut spent = pair.a.serve(10) + pair.b.serve(10);
    // Something is leased at each.
    let running = [&pair.a, &pair.b].map(|gateway| gateway.admit(0, 400).expect("a lease"));
    server.stop(Stop::Immediate);
    let stopped = Instant::now();
    for (gateway, running) in [&pair.a, &pair.b].into_iter().zip(running) {
        // What is held pays for what it was held for.
        let made = made_at_once(&running, 300);
        running.answered(made.into(), 0);
        spent += running.finish().cost.0;
        let operation = gateway.admit(0, 10).expect("it is leased");
        operation.answered(made_at_once(&operation, 10).into(), 0);
        spent += operation.finish().cost.0;
    }
    assert!(stopped.elapsed() < 3 * SECOND, "{:?}", stopped.elapsed());
    wait(8 * SECOND, "the lease ends", || {
        let denied = pair.a.admit(0, 1).map_err(|denied| denied.rule).err();
        assert!(matches!(denied, None | Some(Rule::Unavailable)), "{denied:?}");
        denied.is_some()
    });
    assert!(stopped.elapsed() > 3 * SECOND, "{:?}", stopped.elapsed());
    assert!(stopped.elapsed() < 7 * SECOND, "{:?}", stopped.elapsed());
    server.start_again();
    for gateway in [&pair.a, &pair.b] {
        let operation = gateway.admit_within(10, 5 * SECOND);
        gateway.generate(&operation, 10);
        operation.answered(10, 0);
        spent += operation.finish().cost.0;
    }
    pair.check(spent);
    // Before their database is.
    drop(pair);
}
