//! Random steps of up to three gateways: requests, cancels, raises, edits, jumps of the clock,
//! deaths, returns and outages of the database. After every one no budget is exceeded.

use hearth_tests::services::{Postgres, Stop};

use super::world::{Tally, World};

const SEEDS: u64 = 2;
const STEPS: usize = 160;

struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with HEARTH_SEED={}", self.0);
        }
    }
}

fn run(seed: u64, server: &Postgres) -> Tally {
    let _seed = Seed(seed);
    let mut world = World::new(seed, server.fresh());
    let outage = world.random.index(STEPS);
    for step in 0..STEPS {
        if step == outage {
            world.tally.outages += 1;
            server.stop(Stop::Immediate);
            for _ in 0..20 {
                one(&mut world);
            }
            server.start_again();
        }
        match world.random.below(100) {
            90..=94 => world.edit(),
            95 if world.living().len() > 1 => world.crash(),
            96 | 97 if !world.dead.is_empty() => world.come_back(),
            98 if world.gateways.len() < 3 => world.open(),
            _ => one(&mut world),
        }
        world.check();
    }
    world.close()
}

/// A step that needs no database.
fn one(world: &mut World) {
    let running = world.running.len();
    match world.random.below(90) {
        0..=29 if running < 16 => world.admit(),
        30..=69 if running > 0 => {
            let at = world.random.index(running);
            world.make(at);
        }
        70..=80 if running > 0 => {
            let at = world.random.index(running);
            world.end(at);
        }
        81..=85 => world.jump(),
        _ => {}
    }
    world.check();
}

#[test]
fn no_budget_is_exceeded_whatever_happens_to_gateways() {
    let server = Postgres::start();
    let seeds = match std::env::var("HEARTH_SEED") {
        Ok(seed) => vec![seed.parse().expect("HEARTH_SEED is a number")],
        Err(_) => (1..=SEEDS).collect(),
    };
    let tallies: Vec<Tally> = seeds.iter().map(|seed| run(*seed, &server)).collect();
    let sum = |count: fn(&Tally) -> u32| tallies.iter().map(count).sum::<u32>();
    let counts = [sum(|t| t.admitted), sum(|t| t.refused), sum(|t| t.extended)];
    let seldom = [sum(|t| t.crashes), sum(|t| t.outages)];
    let unavailable = sum(|t| t.unavailable);
    let enough = counts.iter().chain(&seldom).all(|n| *n >= 1) && unavailable < counts[0];
    assert!(enough || seeds.len() == 1, "{counts:?} {seldom:?} {unavailable}");
}
