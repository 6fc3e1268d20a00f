//! Names of requests that are done once, on both databases.

use govern::store::Store;
use govern::store::idempotency::Claim;
use hearth_tests::services::postgres;

const DAY: i64 = 24 * 3_600_000;

async fn check(url: &str) {
    let store = Store::open(url).await.expect("a store");
    let claim = |name: &'static str, request: &'static str, now: i64| {
        let store = store.clone();
        async move { store.claim("org_1", name, request, now).await.expect("an answer") }
    };
    assert_eq!(claim("a", "r1", 1000).await, Claim::Fresh);
    assert_eq!(claim("a", "r1", 1001).await, Claim::Begun);
    assert_eq!(claim("a", "r2", 1001).await, Claim::Other);
    assert_eq!(claim("b", "r1", 1001).await, Claim::Fresh);
    store.answered("org_1", "a", 201, "{'; --").await.expect("it is kept");
    let done = Claim::Done { status: 201, answer: "{'; --".to_owned() };
    assert_eq!(claim("a", "r1", 1002).await, done);
    // What was given up is new again, and nobody else's is touched.
    store.given_up("org_1", "b").await.expect("it is gone");
    assert_eq!(claim("b", "r3", 1003).await, Claim::Fresh);
    assert_eq!(store.claim("org_2", "a", "r1", 1003).await.expect("an answer"), Claim::Fresh);
    // To the millisecond.
    assert_eq!(claim("a", "r1", 999 + DAY).await, done);
    assert_eq!(claim("a", "r2", 1000 + DAY).await, Claim::Fresh);
    let crowd = (0..32).map(|_| tokio::spawn(claim("crowd", "r", 2000 + DAY)));
    let mut fresh = 0;
    for one in crowd.collect::<Vec<_>>() {
        fresh += usize::from(one.await.expect("a task") == Claim::Fresh);
    }
    assert_eq!(fresh, 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_done_once_on_sqlite() {
    let name = format!("hearth-idempotency-{}.db", std::process::id());
    let file = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&file);
    check(&file.display().to_string()).await;
    std::fs::remove_file(&file).expect("it was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_done_once_on_postgresql() {
    let url = tokio::task::spawn_blocking(|| postgres::shared().fresh()).await.expect("a database");
    check(&url).await;
}
