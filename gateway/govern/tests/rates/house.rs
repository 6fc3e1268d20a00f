//! What the tests of shared rates have in common: gateways, rules, waiting for something.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use govern::Denied;
use govern::governor::Clock;
use govern::limit::shared::{Settings, Shared};
use govern::limit::{Admitted, Limits, RateRule};
use govern::policy::Rates;
use redis::aio::MultiplexedConnection;

/// Nothing of these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) const ORGANISATION: &str = "org_a";

/// As usual, but for a machine that has other things to do.
pub(crate) fn settings(url: &str) -> Settings {
    let patience = Duration::from_secs(2);
    Settings { patience, ..Settings::new(url).expect("a URL") }
}

/// With a time that a test sets, in milliseconds.
pub(crate) fn timed(url: &str, time: &Arc<AtomicI64>) -> Settings {
    Settings { clock: Clock::Set(Arc::clone(time)), ..settings(url) }
}

/// A gateway.
pub(crate) async fn gateway(settings: &Settings) -> Limits {
    Limits::among(Shared::start(settings).await.expect("a URL"))
}

pub(crate) fn rates(json: &str) -> Rates {
    serde_json::from_str(json).expect(json)
}

pub(crate) fn rule<'a>(key: &'a str, rates: &'a Rates) -> RateRule<'a> {
    RateRule { key, index: 0, rates, layer: "team research" }
}

/// By the time that the process's own clock shows.
pub(crate) async fn admit(
    limits: &Limits,
    rules: &[RateRule<'_>],
    tokens: u64,
) -> Result<Admitted, Denied> {
    limits.admit_among(ORGANISATION, rules, tokens, Clock::System.micros()).await
}

pub(crate) fn is_there(limits: &Limits) -> bool {
    limits.shared().expect("they are shared").is_there()
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection of the test's own.
pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("it is there")
}

/// Names of all counters that are kept.
pub(crate) async fn kept(connection: &mut MultiplexedConnection) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query_async(connection).await.expect("an answer")
}
