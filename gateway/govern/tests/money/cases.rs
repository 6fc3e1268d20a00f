//! Single cases, each of which was wrong once or is a promise by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use govern::budget::window::Period;
use govern::entity::{Budget, Limit, PriceSheet};
use govern::governor::{Clock, EditError};
use govern::ledger::writer::Note;
use govern::ledger::{Outcome, Tokens};
use govern::price::{ModelPrice, TokenPrices};
use govern::store::documents::Edit;
use govern::{Money, Rule};

use super::model::cost;
use super::shop::{BEGIN, Folder, Shop, generate, limit, price, put, settings};

struct Case {
    shop: Shop,
    clock: Arc<AtomicI64>,
    _folder: Folder,
}

async fn case(name: &str, price: ModelPrice) -> Case {
    let folder = Folder::new(&format!("case-{name}"));
    let clock = Arc::new(AtomicI64::new(BEGIN));
    let settings = settings(&folder.0, None, Clock::Set(Arc::clone(&clock)));
    Case { shop: Shop::open(&settings, price).await, clock, _folder: folder }
}

#[tokio::test]
async fn money_for_so_many_tokens_makes_exactly_so_many() {
    let Case { shop, .. } = case("exact", price(0, 0)).await;
    let mut spent = 0;
    // Pico-dollars a token: less than a nano-dollar among them.
    for (at, (input, output)) in
        [(0, 400), (0, 1), (3, 1), (1500, 70_001), (1, 999)].iter().enumerate()
    {
        let rates = TokenPrices { input: *input, output: *output, ..TokenPrices::default() };
        let model = ModelPrice { model: "*".to_owned(), rates, ..ModelPrice::default() };
        let from = BEGIN - 1000 + i64::try_from(at).expect("few");
        let sheet = PriceSheet::new(&format!("sheet {at}"), vec![model.clone()], from);
        put(&shop.governor, vec![Edit::put(&sheet)]).await;
        for tokens in [1, 2, 63, 64, 65, 80, 81, 255, 256, 257, 1000, 4321] {
            let all = Tokens { input: 10, output: tokens, ..Tokens::default() };
            let cost = cost(&model, &all);
            let budget = shop.budget(vec![limit(spent + cost)]);
            put(&shop.governor, vec![Edit::put(&budget)]).await;
            let operation = shop.admit(10, 100_000).expect("money is there");
            let made = generate(&operation, u32::MAX);
            // Where tokens cost parts of a nano-dollar, more of them may fit the same amount.
            let most = u64::try_from((cost * 1000 - 10 * *input as i64) / *output as i64);
            assert_eq!(Ok(u64::from(made)), most);
            assert!(*output < 1000 || u64::from(made) == tokens, "{made} for {tokens}");
            operation.used(Tokens { output: made.into(), ..all }, Outcome::Cancelled, 0);
            operation.stopped_by_budget();
            operation.answered(made.into(), 0);
            let receipt = operation.finish();
            assert!(receipt.budget_stop);
            assert_eq!(receipt.cost, Money(cost));
            spent += cost;
            let denied = shop.admit(10, 1).err().map(|denied| denied.rule);
            assert_eq!(denied, Some(Rule::Budget));
            put(&shop.governor, vec![Edit::delete(&budget)]).await;
        }
    }
}

#[tokio::test]
async fn a_budget_that_is_made_counts_what_runs() {
    let Case { shop, .. } = case("made", price(1, 10)).await;
    // Nothing bounds it, so it may cost as much as it asked for.
    let running = shop.admit(5, 1000).expect("nobody bounds it");
    let budget = shop.budget(vec![limit(10_035)]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    assert_eq!(shop.standing(&budget.id), (0, 10_005));
    let second = shop.admit(0, 1000).expect("30 are left");
    assert_eq!(generate(&second, u32::MAX), 3);
    running.used(Tokens { input: 5, output: 7, ..Tokens::default() }, Outcome::Cancelled, 0);
    drop(running);
    assert_eq!(shop.standing(&budget.id), (75, 30));
    assert!(second.made(3).is_some_and(|paid| paid > 3), "what the first gave back");
    drop(second);
    assert_eq!(shop.standing(&budget.id), (75 + 30, 0));
}

#[tokio::test]
async fn what_is_held_stays_held_through_edits() {
    let Case { shop, .. } = case("edits", price(0, 10)).await;
    let budget = shop.budget(vec![limit(1000)]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    let running = shop.admit(0, 64).expect("640 of 1000");
    let mut other = budget.clone();
    other.limits.push(Limit { period: Period::Day, ..limit(1000) });
    for edits in [
        vec![Edit::put(&other)],
        vec![Edit::put(&budget)],
        vec![Edit::delete(&budget), Edit::put(&budget)],
    ] {
        put(&shop.governor, edits).await;
        assert_eq!(shop.standing(&budget.id), (0, 640));
        let second = shop.admit(0, 64).expect("360 are left");
        assert_eq!(generate(&second, u32::MAX), 36);
        second.used(Tokens::default(), Outcome::Failed, 0);
    }
    assert_eq!(generate(&running, 64), 64);
    drop(running);
    assert_eq!(shop.standing(&budget.id), (640, 0));
}

#[tokio::test]
async fn tokens_put_into_a_cache_are_held_at_their_price() {
    let mut dear = price(10, 10);
    dear.rates.cache_write = Some(12_500);
    let Case { shop, .. } = case("cache", dear).await;
    let budget = shop.budget(vec![limit(1250 + 10)]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    assert!(shop.admit(101, 1).is_err_and(|denied| denied.rule == Rule::Budget));
    let operation = shop.admit(100, 50).expect("it fits");
    assert_eq!(generate(&operation, u32::MAX), 1);
    let tokens = Tokens { input: 100, cache_write: 100, output: 1, ..Tokens::default() };
    operation.used(tokens, Outcome::Cancelled, 0);
    assert_eq!(operation.finish().cost, Money(1260));
}

/// A clock that shows tomorrow for a moment, and a restart: tomorrow begins with what was spent
/// in it, and today does not count it.
#[tokio::test]
async fn spending_under_a_wrong_clock_stays_in_its_window() {
    const DAY: i64 = 86_400_000;
    let Case { shop, clock, _folder: folder } = case("clock", price(0, 10)).await;
    let budget = shop.budget(vec![Limit { period: Period::Day, ..limit(1000) }]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    for (day, tokens) in [(0, 10), (1, 60)] {
        clock.store(BEGIN + day * DAY, Ordering::SeqCst);
        generate(&shop.admit(0, tokens).expect("money is there"), tokens);
    }
    clock.store(BEGIN, Ordering::SeqCst);
    shop.governor.flush().await;
    let Shop { governor, principal, project, organisation } = shop;
    drop(governor);
    let settings = settings(&folder.0, None, Clock::Set(Arc::clone(&clock)));
    let governor = super::shop::open(&settings).await;
    let shop = Shop { governor, principal, project, organisation };
    assert_eq!(shop.standing(&budget.id), (100, 0));
    clock.store(BEGIN + DAY, Ordering::SeqCst);
    let denied = shop.admit(0, 50).err().map(|denied| denied.rule);
    assert_eq!(denied, Some(Rule::Unavailable), "it has to be summed up");
    shop.governor.flush().await;
    assert_eq!(shop.standing(&budget.id), (600, 0));
    assert_eq!(generate(&shop.admit(0, 50).expect("it is known"), 50), 40);
}

/// What the database has, memory has, even if whoever asked for it is gone.
#[tokio::test]
async fn an_edit_whose_caller_leaves_is_made_all_the_same() {
    let Case { shop, .. } = case("leaves", price(0, 10)).await;
    let budget = shop.budget(vec![limit(1000)]);
    let edits = vec![Edit::put(&budget)];
    let mut edit =
        Box::pin(shop.governor.edit(|_, _| Ok::<_, EditError>((edits, Note::default(), ()))));
    let left = std::future::poll_fn(|context| {
        std::task::Poll::Ready(edit.as_mut().poll(context).is_pending())
    });
    assert!(left.await, "it takes a commit");
    drop(edit);
    // The next edit waits for its turn.
    let other = Budget { name: "other".to_owned(), ..shop.budget(vec![limit(1)]) };
    put(&shop.governor, vec![Edit::put(&other)]).await;
    assert!(shop.governor.directory().budget(&budget.id).is_some());
    assert_eq!(shop.standing(&budget.id), (0, 0));
}
