//! One budget, many threads: never a nano-dollar over, and the last token's money is used.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use govern::governor::Clock;
use govern::ledger::{Outcome, Tokens};
use govern::store::documents::Edit;
use govern::{Id, Operation, Rule};
use hearth_tests::simulation::random::Random;
use sqlx::Row as _;

use super::ledger::check_sums;
use super::shop::{BEGIN, Folder, Shop, limit, open, price, put, settings};

const THREADS: u64 = 8;
const LIMIT: i64 = 2_000_003;
const INPUT: u64 = 3;
const OUTPUT: u64 = 7;

/// One request, ended in one way or another.
fn serve(operation: &Arc<Operation>, input: u64, random: &mut Random, watch: impl Fn()) {
    let wish = random.between(1, 300) as u32;
    let mut made = 0;
    while made < wish.min(operation.allowance()) {
        made += 1;
        operation.made(made);
        if made % 16 == 0 {
            operation.hands_out(made.into(), 0);
            watch();
        }
    }
    let used = Tokens { input, output: made.into(), ..Tokens::default() };
    match random.below(6) {
        0 => {}
        1 => operation.used(used, Outcome::Failed, 0),
        2 => operation.used(used, Outcome::Cancelled, 0),
        _ => {
            operation.used(used, Outcome::Cancelled, 0);
            operation.answered(made.into(), 0);
            operation.finish();
        }
    }
}

/// Serves requests until ten in a row were refused.
fn spend(shop: &Shop, budget: &Id, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let watch = || {
        let (spent, held) = shop.standing(budget);
        assert!(spent + held <= LIMIT, "{spent} + {held}");
    };
    let (mut served, mut refused) = (0, 0);
    while refused < 10 {
        let input = random.below(4);
        match shop.admit(input, random.between(1, 400) as u32) {
            Ok(operation) => {
                serve(&operation, input, &mut random, watch);
                (served, refused) = (served + 1, 0);
            }
            Err(denied) => {
                assert_eq!(denied.rule, Rule::Budget, "{denied}");
                refused += 1;
                std::thread::yield_now();
            }
        }
        watch();
    }
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_share_one_budget_to_the_last_token() {
    let folder = Folder::new("threads");
    let clock = Clock::Set(Arc::new(AtomicI64::new(BEGIN)));
    let settings = settings(&folder.0, None, clock);
    let shop = Arc::new(Shop::open(&settings, price(INPUT, OUTPUT)).await);
    let budget = shop.budget(vec![limit(LIMIT)]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| {
            let (shop, id) = (Arc::clone(&shop), budget.id.clone());
            tokio::task::spawn_blocking(move || spend(&shop, &id, seed))
        })
        .collect();
    let mut served = 0;
    for thread in threads {
        served += thread.await.expect("no thread panics");
    }
    // Others may have given money back after the last was refused: one more takes it.
    while let Ok(operation) = shop.admit(0, 1) {
        operation.answered(1, 0);
        operation.finish();
        served += 1;
    }
    let (spent, held) = shop.standing(&budget.id);
    assert_eq!(held, 0);
    assert!(spent <= LIMIT && spent + OUTPUT as i64 > LIMIT, "{spent} of {LIMIT}");
    shop.governor.flush().await;
    assert_eq!(shop.governor.open_operations(), 0);
    let row = sqlx::query("SELECT COUNT(*), CAST(SUM(cost_nano_usd) AS BIGINT) FROM ledger");
    let row = row.fetch_one(shop.governor.store().read()).await.expect("the ledger");
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (served as i64, spent));
    check_sums(&shop.governor).await;
    drop(shop);
    let governor = open(&settings).await;
    let standing = governor.books().standing(&budget.id, BEGIN).expect("an account");
    assert_eq!((standing[0].spent.0, standing[0].held.0), (spent, 0));
}
