//! Models that are sold by the time of their device: held by what is known before, charged by what
//! was measured, and never more.

#[path = "money/shop.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod shop;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use govern::governor::Clock;
use govern::ledger::{Outcome, Tokens};
use govern::price::{DevicePrice, ModelPrice};
use govern::report::{EntryQuery, entries};
use govern::store::documents::Edit;
use govern::{Money, Rule};
use shop::{BEGIN, Folder, Shop, limit, put, settings};

/// A milli-dollar for a second.
fn timed(us_per_token_max: Option<u32>) -> ModelPrice {
    let device = DevicePrice { gpu_second: 1_000_000, us_per_token_max, ..DevicePrice::default() };
    ModelPrice { model: "*".to_owned(), device: Some(device), ..ModelPrice::default() }
}

async fn shop(folder: &Folder, price: ModelPrice) -> Shop {
    let clock = Clock::Set(Arc::new(AtomicI64::new(BEGIN)));
    Shop::open(&settings(&folder.0, None, clock), price).await
}

/// What a request of ten tokens costs whose answer has so many, and that ran for so long.
fn cost(shop: &Shop, output: u64, device_us: u64) -> Money {
    let operation = shop.admit(10, 90).expect("let in");
    operation.ran_for(device_us);
    let tokens = Tokens { input: 10, output, ..Tokens::default() };
    operation.used(tokens, Outcome::Done, 1);
    operation.finish().cost
}

#[tokio::test]
async fn time_without_a_bound_is_no_price_where_a_hard_budget_pays() {
    let folder = Folder::new("device-open");
    let shop = shop(&folder, timed(None)).await;
    assert_eq!(cost(&shop, 5, 2_000_000), Money(2_000_000), "as measured");
    let mut soft = limit(1);
    soft.soft = true;
    let budget = shop.budget(vec![soft]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    assert_eq!(cost(&shop, 5, 3_000_000), Money(3_000_000), "it only tells");
    let hard = govern::entity::Budget { limits: vec![limit(i64::MAX / 2)], ..budget };
    put(&shop.governor, vec![Edit::put(&hard)]).await;
    let denied = shop.admit(10, 90).err().expect("refused");
    assert_eq!(denied.rule, Rule::Price);
    assert!(denied.message.contains("us_per_token_max"), "{denied}");
}

#[tokio::test]
async fn what_is_charged_was_held() {
    let folder = Folder::new("device-bound");
    // A tenth of a second for a token at most: 100,000 nano-dollars.
    let shop = shop(&folder, timed(Some(100_000))).await;
    let budget = shop.budget(vec![limit(2_000_000)]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    assert_eq!(cost(&shop, 5, 300_000), Money(300_000), "as measured");
    // Fifteen tokens take a second and a half at most, whatever the clock said.
    assert_eq!(cost(&shop, 5, u64::MAX), Money(1_500_000));
    assert_eq!(shop.standing(&budget.id), (1_800_000, 0));
    // Ten tokens of prompt alone may cost a million, and 200,000 are left.
    assert_eq!(shop.admit(10, 90).err().expect("refused").rule, Rule::Budget);
    let last = shop.admit(1, 90).expect("two tokens are paid for");
    assert_eq!(last.allowance(), 1);
    // A failure is ours, however long it took.
    last.ran_for(1_000_000);
    last.used(Tokens { input: 1, ..Tokens::default() }, Outcome::Failed, 0);
    assert_eq!(last.finish().cost, Money::ZERO);
    shop.governor.flush().await;
    let query = EntryQuery {
        organisation: None,
        filters: vec![],
        from: 0,
        to: i64::MAX,
        after: None,
        limit: 10,
    };
    let (lines, _) = entries(shop.governor.store(), &query).await.expect("lines");
    let mut times: Vec<u64> = lines.iter().map(|line| line.device_us).collect();
    times.sort_unstable();
    assert_eq!(times, [300_000, 1_000_000, i64::MAX.unsigned_abs()], "kept as far as it fits");
}
