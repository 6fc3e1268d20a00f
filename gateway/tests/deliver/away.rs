//! The database is away: people are told without it.

use std::time::Duration;

use gateway::deliver::settings::{Pace, Settings};
use hearth_tests::services::{Postgres, Stop};
use serde_json::Value;

use super::receiver::{Does, Receiver};
use super::world::{Folder, World, pace, webhook};

/// Longer than a stop and a start of the database take here.
const AWAY: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_that_the_database_is_away() {
    let folder = Folder::new();
    let postgres = Postgres::start();
    let world = World::open(&folder, &postgres.fresh(), "gateway-1").await;
    let receiver = Receiver::new(&[Does::Answers(503)]);
    let settings = Settings {
        webhooks: vec![webhook(&receiver.url(), None)],
        pace: Pace { away: AWAY, ..pace() },
        ..Settings::default()
    };
    let _deliver = world.deliver(settings);
    // A short absence is nobody's business.
    postgres.stop(Stop::Immediate);
    tokio::time::sleep(Duration::from_secs(3)).await;
    postgres.start_again();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(receiver.asked().is_empty(), "{:#?}", receiver.asked());
    postgres.stop(Stop::Immediate);
    let begun = std::time::Instant::now();
    let asked = receiver.wait("told", |asked| asked.len() == 2);
    assert!(begun.elapsed() >= AWAY, "{:?}", begun.elapsed());
    let body: Value = serde_json::from_str(&asked[1].body).expect("JSON");
    assert_eq!(body["kind"], "database_away");
    assert_eq!(asked[0].header("webhook-id"), asked[1].header("webhook-id"));
    // Once, however long it takes; and nothing is left of it when the database is back.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    postgres.start_again();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.asked().len(), 2);
}
