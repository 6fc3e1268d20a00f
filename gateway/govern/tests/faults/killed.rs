//! SIGKILL at any moment, also while what the last one left is being settled.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use govern::governor::Clock;
use hearth_tests::simulation::random::Random;

use super::shop::{Folder, open, settings};
use super::till::{check, hear, serve, shop, start};

const ROUNDS: u64 = 24;
const TASKS: u64 = 4;

/// Serves requests for ever.
#[test]
#[ignore = "a process of its own, for the next test"]
fn till_to_be_killed() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let shop = Arc::new(shop().await);
        let name = std::process::id();
        let tasks = (0..TASKS).map(|task| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move {
                let mut random = Random::new(u64::from(name) * TASKS + task);
                for count in 0.. {
                    serve(&shop, &format!("{name}-{task}-{count}"), &mut random).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("it never ends");
        }
    });
}

#[test]
fn what_began_is_settled_once_after_any_kill() {
    let folder = Folder::new("killed");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut random = Random::new(std::process::id().into());
    let mut said = BTreeMap::new();
    let mut cut = 0;
    for round in 0..ROUNDS {
        let (mut child, out) = start("killed::till_to_be_killed", &folder.0, "");
        let mut out = BufReader::new(out);
        if round % 3 == 2 {
            // While it opens, or begins.
            std::thread::sleep(Duration::from_millis(random.between(5, 120)));
        } else {
            hear(&mut out, &mut said, random.between(1, 6000) as usize);
        }
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        hear(&mut out, &mut said, usize::MAX);
        cut += said.values().filter(|about| about.begins && about.ends.is_none()).count();
        if round % 2 == 1 {
            let settings = settings(&folder.0, None, Clock::System);
            runtime.block_on(async { check(&open(&settings).await, &said, 0).await });
        }
    }
    assert!(said.len() > 50 && cut > 20, "{} requests, {cut} of them cut", said.len());
}
