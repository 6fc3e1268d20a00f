//! PostgreSQL goes away in the middle, in order or not, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use govern::entity::Budget;
use govern::governor::{Clock, EditError};
use govern::ledger::writer::Note;
use govern::store::documents::Edit;
use hearth_tests::services::{Postgres, Stop};
use sqlx::Row as _;

use super::ledger::check_sums;
use super::shop::{Folder, Shop, generate, limit, open, price, put, settings};

const PATIENCE: Duration = Duration::from_millis(200);

/// What was served, by all tasks.
#[derive(Default)]
struct Served {
    stop: AtomicBool,
    count: AtomicU64,
    cost: AtomicI64,
}

/// Serves requests until it is told to stop. No step waits for the database longer than a caller's
/// patience.
async fn serve(shop: Arc<Shop>, served: Arc<Served>) {
    while !served.stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        shop.governor.stock_up(&shop.principal, &shop.ask("", 3, 40)).await;
        let operation = shop.admit(3, 40).expect("what is known is enough");
        let made = generate(&operation, 40);
        operation.answered(made.into(), 0);
        let receipt = operation.finish();
        served.cost.fetch_add(receipt.cost.0, Ordering::SeqCst);
        served.count.fetch_add(1, Ordering::SeqCst);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        let begun = Instant::now();
        receipt.durable(PATIENCE).await;
        assert!(begun.elapsed() < PATIENCE + Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

fn start(shop: &Arc<Shop>, served: &Arc<Served>) -> Vec<tokio::task::JoinHandle<()>> {
    served.stop.store(false, Ordering::SeqCst);
    (0..4).map(|_| tokio::spawn(serve(Arc::clone(shop), Arc::clone(served)))).collect()
}

async fn check(shop: &Shop, served: &Served, budget: &Budget) {
    shop.governor.flush().await;
    assert_eq!(shop.governor.open_operations(), 0);
    let sql = "SELECT COUNT(*), CAST(SUM(cost_nano_usd) AS BIGINT) FROM ledger";
    let row = sqlx::query(sql).fetch_one(shop.governor.store().read()).await.expect("the ledger");
    let (count, cost) = (served.count.load(Ordering::SeqCst), served.cost.load(Ordering::SeqCst));
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (count as i64, cost));
    assert_eq!(shop.standing(&budget.id), (cost, 0));
    check_sums(&shop.governor).await;
}

#[test]
fn an_outage_loses_nothing_and_books_nothing_twice() {
    let server = Postgres::start();
    let folder = Folder::new("outage");
    let settings = settings(&folder.0, Some(server.fresh()), Clock::System);
    let served = Arc::new(Served::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (shop, budget) = runtime.block_on(async {
        let shop = Arc::new(Shop::open(&settings, price(2, 3)).await);
        let budget = shop.budget(vec![limit(1 << 50)]);
        put(&shop.governor, vec![Edit::put(&budget)]).await;
        (shop, budget)
    });
    for how in [Stop::Fast, Stop::Immediate] {
        runtime.block_on(async {
            let tasks = start(&shop, &served);
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| server.stop(how));
            let before = served.count.load(Ordering::SeqCst);
            let lost = Budget { name: format!("{how:?}"), ..shop.budget(vec![limit(1)]) };
            let begun = Instant::now();
            let edit = shop
                .governor
                .edit(|_, _| Ok::<_, EditError>((vec![Edit::put(&lost)], Note::default(), ())));
            assert!(edit.await.is_err_and(|error| matches!(error, EditError::Store(_))));
            assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
            assert!(shop.governor.directory().budget(&lost.id).is_none());
            assert!(served.count.load(Ordering::SeqCst) > before, "requests go on");
            tokio::task::block_in_place(|| server.start_again());
            served.stop.store(true, Ordering::SeqCst);
            for task in tasks {
                task.await.expect("no task panics");
            }
            check(&shop, &served, &budget).await;
            let sql = "SELECT COUNT(*) FROM documents WHERE name = $1";
            let row = sqlx::query(sql).bind(&lost.name).fetch_one(shop.governor.store().read());
            assert_eq!(row.await.expect("a count").get::<i64, _>(0), 0, "it was refused");
        });
    }
    // The gateway dies while the database is away: the journal has it all.
    runtime.block_on(async {
        let tasks = start(&shop, &served);
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::task::block_in_place(|| server.stop(Stop::Immediate));
        tokio::time::sleep(Duration::from_millis(500)).await;
        served.stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.expect("no task panics");
        }
    });
    drop(shop);
    runtime.shutdown_background();
    server.start_again();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        drop(open(&settings).await);
        let shop = Shop::open(&settings, price(2, 3)).await;
        check(&shop, &served, &budget).await;
    });
}
