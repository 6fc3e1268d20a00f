//! What governing costs: reservations per second with SQLite on disk, each settled and durable
//! before the next one of its task; and the time of letting in and settling alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use govern::entity::Budget;
use govern::governor::Clock;
use govern::store::documents::Edit;
use govern::{Id, Operation, Scope};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::record::cpu_seconds;

#[path = "../../gateway/govern/tests/money/shop.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod shop;
use shop::{Folder, Shop, limit, price, put, settings};

/// Reservations per second that a gateway for a company needs, on two cores.
pub const TARGET: f64 = 20_000.0;

/// Worker threads: the cores of the target.
const WORKERS: usize = 2;

/// Longest wait for the database before a figure means nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times each number of tasks for `seconds`, and `settles` reservations one by one.
///
/// # Errors
/// The runtime cannot be started.
pub fn run(tasks: &[usize], seconds: f64, settles: usize) -> anyhow::Result<Value> {
    let memory = alone(settles)?;
    let durable = tasks.iter().map(|tasks| together(*tasks, seconds));
    let durable = durable.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({ "workers": WORKERS, "target_per_second": TARGET, "memory": memory,
        "durable": durable }))
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().context("a runtime")
}

/// A key that four budgets bound.
async fn shop(folder: &Path) -> Shop {
    let shop = Shop::open(&settings(folder, None, Clock::System), price(3000, 15_000)).await;
    let key = shop.principal.key.as_ref().map(|key| key.id.clone()).unwrap_or_default();
    let scopes = [
        Scope::Everything,
        Scope::Organisation(shop.organisation.clone()),
        Scope::Project(shop.project.clone()),
        Scope::Key(key),
    ];
    let budgets = scopes.into_iter().map(|scope| {
        let budget = shop.budget(vec![limit(i64::MAX / 2)]);
        let id = Id::new("bud", 0);
        Edit::put(&Budget { name: id.to_string(), id, scope, ..budget })
    });
    put(&shop.governor, budgets.collect()).await;
    shop
}

/// A request of 500 tokens and an answer of 20: let in, told of, and settled.
fn reserve(shop: &Shop) -> Arc<Operation> {
    let operation = shop.admit_as("req_0k3v8w2n5q7r1s4t6x9z", 500, 200).expect("money is there");
    operation.hands_out(10, 0);
    operation.answered(20, 0);
    operation
}

/// Letting in and settling, without waiting for the database.
fn alone(settles: usize) -> anyhow::Result<Value> {
    let folder = Folder::new("bench-govern-alone");
    runtime()?.block_on(async {
        let shop = shop(&folder.0).await;
        let mut times = Vec::with_capacity(settles);
        for count in 1..=settles {
            let begun = Instant::now();
            drop(reserve(&shop).finish());
            times.push(begun.elapsed());
            // The writer must not fall behind by more than it has room for.
            if count % 1000 == 0 {
                shop.governor.flush().await;
            }
        }
        times.sort_unstable();
        let us = |permille: usize| times[(times.len() - 1) * permille / 1000].as_secs_f64() * 1e6;
        Ok(json!({ "settles": settles, "us_p50": us(500), "us_p99": us(990) }))
    })
}

/// So many tasks, each of which waits until its reservation is durable.
fn together(tasks: usize, seconds: f64) -> anyhow::Result<Value> {
    let folder = Folder::new(&format!("bench-govern-{tasks}"));
    runtime()?.block_on(async {
        let shop = Arc::new(shop(&folder.0).await);
        let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let running = (0..tasks).map(|_| {
            let (shop, over, count) = (Arc::clone(&shop), Arc::clone(&over), Arc::clone(&count));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    reserve(&shop).finish().durable(PATIENCE).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let running: Vec<_> = running.collect();
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        over.store(true, Ordering::Relaxed);
        for task in running {
            task.await.context("a task")?;
        }
        let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let count = count.load(Ordering::Relaxed) as f64;
        Ok(json!({ "tasks": tasks, "per_second": count / elapsed, "cpu_us": cpu / count * 1e6 }))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_small() {
        let figures = super::run(&[1, 8], 0.1, 50).expect("it runs");
        assert!(figures["memory"]["us_p50"].as_f64().expect("a figure") > 0.0);
        for durable in figures["durable"].as_array().expect("a list") {
            assert!(durable["per_second"].as_f64().expect("a figure") > 0.0, "{figures}");
        }
    }
}
