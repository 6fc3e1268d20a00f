//! Money is never wrong: thousands of random steps beside a model that only adds up lists, and real
//! threads on one budget. `HEARTH_SEED=` replays what failed.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "all numbers of these tests are small"
)]

#[path = "money/cases.rs"]
mod cases;
#[path = "money/ledger.rs"]
mod ledger;
#[path = "money/model.rs"]
mod model;
#[path = "money/records.rs"]
mod records;
#[path = "money/shop.rs"]
mod shop;
#[path = "money/steps.rs"]
mod steps;
#[path = "money/threads.rs"]
mod threads;
#[path = "money/world.rs"]
mod world;

use hearth_tests::services::postgres;
use shop::Folder;
use world::{Tally, World};

/// Says which seed it was when a test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with HEARTH_SEED={}", self.0);
        }
    }
}

async fn run(seed: u64, steps: usize, url: Option<String>) -> Tally {
    let _seed = Seed(seed);
    let folder = Folder::new(&format!("money-{seed}-{}", url.is_some()));
    let mut world = World::new(seed, &folder.0, url).await;
    let mut running = Vec::new();
    for _ in 0..steps {
        match world.random.below(100) {
            0..=23 if running.len() < 24 => world.admit(&mut running).await,
            24..=79 if !running.is_empty() => {
                let at = world.random.index(running.len());
                let mut over = false;
                for _ in 0..world.random.below(20) {
                    over |= world.make(&mut running[at]).await;
                    if over {
                        break;
                    }
                }
                if over && world.random.permille(300) {
                    let done = running.swap_remove(at);
                    world.end(done);
                }
            }
            80..=84 if !running.is_empty() => {
                let at = world.random.index(running.len());
                let done = running.swap_remove(at);
                world.end(done);
            }
            85..=93 => world.jump(),
            94..=97 => world.edit().await,
            98 => world.new_sheet().await,
            99 if world.random.permille(200) => {
                running.drain(..).for_each(|done| world.end(done));
                world = world.restart().await;
            }
            _ => {}
        }
        world.check();
    }
    running.drain(..).for_each(|done| world.end(done));
    world.restart().await.tally
}

/// Something of every kind happened, and often.
fn enough(tallies: &[Tally], least: u32) {
    let sum = |count: fn(&Tally) -> u32| tallies.iter().map(count).sum::<u32>();
    let often = [sum(|t| t.admitted), sum(|t| t.refused), sum(|t| t.extended), sum(|t| t.stopped)];
    let seldom = [sum(|t| t.summed_up), sum(|t| t.without_price), sum(|t| t.restarts)];
    let enough = often.iter().all(|n| *n >= least) && seldom.iter().all(|n| *n >= least / 20);
    assert!(enough || tallies.len() == 1, "{often:?} {seldom:?}");
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("HEARTH_SEED") {
        Ok(seed) => vec![seed.parse().expect("HEARTH_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_and_ledger_are_right_after_every_step() {
    let mut tallies = Vec::new();
    for seed in seeds(12) {
        tallies.push(run(seed, 1000, None).await);
    }
    enough(&tallies, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_too() {
    for seed in seeds(2) {
        run(seed, 400, Some(postgres::shared().fresh())).await;
    }
}
