//! Requests at once, among gateways: a place is kept while its request runs, and free when its
//! gateway has died.

use std::time::{Duration, Instant};

use govern::limit::Limits;
use govern::limit::shared::Settings;
use govern::{Denied, Rule};
use hearth_tests::services::{Redis, Stop};
use tokio::runtime::Runtime;

use super::house::{PATIENCE, admit, gateway, is_there, rates, rule, settings, until};

const TWO: &str = r#"{"concurrent": 2}"#;

fn quick(url: &str) -> Settings {
    let (hold, renew) = (Duration::from_millis(1500), Duration::from_millis(300));
    Settings { hold, renew, ..settings(url) }
}

async fn enter(limits: &Limits) -> Result<govern::limit::Admitted, Denied> {
    let bounds = rates(TWO);
    admit(limits, &[rule("team:a", &bounds)], 0).await
}

fn is_full(runtime: &Runtime, limits: &Limits) -> bool {
    match runtime.block_on(enter(limits)) {
        Ok(_) => false,
        Err(denied) => {
            assert_eq!(denied.rule, Rule::Concurrency);
            true
        }
    }
}

#[test]
fn a_dead_gateways_places_free_themselves() {
    let redis = Redis::start();
    let settings = quick(&redis.url());
    let (mortal, other) = (Runtime::new().expect("a runtime"), Runtime::new().expect("a runtime"));
    let first = mortal.block_on(gateway(&settings));
    let second = other.block_on(gateway(&settings));
    let held = mortal.block_on(async { [enter(&first).await, enter(&first).await] });
    let held = held.map(|one| one.expect("two fit"));
    // They are renewed: long after they would have been free.
    let begun = Instant::now();
    while begun.elapsed() < settings.hold * 2 {
        assert!(is_full(&other, &second), "after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    // As with SIGKILL: nothing is given back, and nobody renews.
    std::mem::forget((held, first));
    mortal.shutdown_background();
    let died = Instant::now();
    until("the places are free", || !is_full(&other, &second));
    let passed = died.elapsed();
    assert!(passed >= settings.hold / 2, "too early: {passed:?}");
    assert!(passed <= settings.hold + Duration::from_secs(2), "too late: {passed:?}");
}

#[test]
fn who_leaves_frees_the_place_at_once() {
    let redis = Redis::start();
    let runtime = Runtime::new().expect("a runtime");
    // Places would be held for half a minute.
    let settings = settings(&redis.url());
    let first = runtime.block_on(gateway(&settings));
    let second = runtime.block_on(gateway(&settings));
    let held = runtime.block_on(async { [enter(&first).await, enter(&first).await] });
    assert!(is_full(&runtime, &second));
    drop(held);
    until("the places are free", || !is_full(&runtime, &second));
    // A caller that left while the server was asked holds nothing either.
    for _ in 0..50 {
        runtime.block_on(async {
            let entering = enter(&first);
            let _ = tokio::time::timeout(Duration::from_micros(150), entering).await;
        });
    }
    until("the places are free", || !is_full(&runtime, &second));
    let both = || runtime.block_on(async { [enter(&second).await, enter(&second).await] });
    until("both of them", || both().iter().all(Result::is_ok));
}

/// A server that comes back empty hears of those that run before it lets in too many.
#[test]
fn a_server_that_was_killed_learns_who_runs() {
    let redis = Redis::start();
    let settings = quick(&redis.url());
    let runtime = Runtime::new().expect("a runtime");
    let first = runtime.block_on(gateway(&settings));
    let second = runtime.block_on(gateway(&settings));
    let before = runtime.block_on(enter(&first)).expect("two fit");
    redis.stop(Stop::Immediate);
    until("it is gone", || {
        drop(runtime.block_on(enter(&second)));
        !is_there(&second)
    });
    // This one alone knows of one that runs, so one more fits.
    let meanwhile = runtime.block_on(enter(&first)).expect("two fit");
    assert!(is_full(&runtime, &first));
    redis.start_again();
    until("it is back", || is_there(&first) && is_there(&second));
    let begun = Instant::now();
    until("the other one is told of both", || is_full(&runtime, &second));
    assert!(begun.elapsed() < PATIENCE / 5, "{:?}", begun.elapsed());
    std::thread::sleep(settings.hold);
    assert!(is_full(&runtime, &second));
    drop((before, meanwhile));
    until("the places are free", || !is_full(&runtime, &second));
}
