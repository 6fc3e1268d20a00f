//! A target that fails is left alone, and one request looks whether it is well again.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::caller::{Inbound, ask, gateway, provider};
use crate::speech::{answer, good};
use crate::upstream::{Step, Upstream};

#[tokio::test]
async fn three_failures_and_one_probe() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let router = gateway(&provider("ill", "compatible", &ill.url, ""));
    for _ in 0..3 {
        assert_eq!(ask(&router, Inbound::Chat, "ill/m", false).await.status, 502);
    }
    let alone = ask(&router, Inbound::Chat, "ill/m", false).await;
    assert_eq!((alone.status, ill.count()), (503, 3), "{}", alone.text());
    assert_eq!(alone.header("retry-after"), "1");
    // Another model of the same provider is another target.
    assert_eq!(ask(&router, Inbound::Chat, "ill/n", false).await.status, 502);
    assert_eq!(ill.count(), 4);

    ill.turn(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(300))];
        steps.extend(good(seen, "again"));
        steps
    });
    sleep(Duration::from_millis(1_100)).await;
    let five = (0..5).map(|_| ask(&router, Inbound::Chat, "ill/m", false));
    let mut found: Vec<u16> = join_all(five).await.iter().map(|got| got.status).collect();
    found.sort_unstable();
    assert_eq!((found, ill.count()), (vec![200, 503, 503, 503, 503], 5), "one probe");
    let after = (0..5).map(|_| ask(&router, Inbound::Chat, "ill/m", false));
    assert!(join_all(after).await.iter().all(|got| got.status == 200));
}

/// A probe that fails doubles the pause.
#[tokio::test]
async fn a_failed_probe_waits_longer() {
    let ill = Upstream::start(|_| vec![Step::Reset]).await;
    let router = gateway(&provider("ill", "compatible", &ill.url, ""));
    for _ in 0..3 {
        assert_eq!(ask(&router, Inbound::Chat, "ill/m", false).await.status, 502);
    }
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(ask(&router, Inbound::Chat, "ill/m", false).await.status, 502);
    let after = ask(&router, Inbound::Chat, "ill/m", false).await;
    assert_eq!((after.status, ill.count()), (503, 4));
    sleep(Duration::from_millis(1_100)).await;
    let still = ask(&router, Inbound::Chat, "ill/m", false).await;
    assert_eq!((still.status, ill.count()), (503, 4), "two seconds, not one");
}

#[tokio::test]
async fn what_is_no_illness() {
    for (status, more, seen) in [
        (429, "retry-after: 0\r\n", 429),
        (503, "retry-after: 0\r\n", 503),
        (400, "", 400),
        (401, "", 502),
    ] {
        let ill = Upstream::start(move |_| answer(status, more, b"{}")).await;
        let router = gateway(&provider("ill", "compatible", &ill.url, ""));
        for _ in 0..10 {
            let got = ask(&router, Inbound::Chat, "ill/m", false).await;
            assert_eq!(got.status, seen, "{status}: {}", got.text());
        }
        assert_eq!(ill.count(), 10, "{status}");
    }
}

/// Whoever is only busy says when to come back; who says nothing more than that it is not there is
/// ill.
#[tokio::test]
async fn a_503_without_a_time_is_an_illness() {
    let ill = Upstream::start(|_| answer(503, "", b"no healthy upstream")).await;
    let router = gateway(&provider("ill", "compatible", &ill.url, ""));
    for count in 1..=4 {
        let got = ask(&router, Inbound::Chat, "ill/m", false).await;
        assert_eq!((got.status, got.header("retry-after")), (503, "1"), "{}", got.text());
        assert_eq!(ill.count(), count.min(3));
    }
}

/// Streams that break count as failures too, though their beginning was well.
#[tokio::test]
async fn a_broken_stream_is_an_illness() {
    for inbound in [Inbound::Chat, Inbound::Messages] {
        let ill = Upstream::start(|seen| {
            use crate::speech::{chunk, end, half, stream_head};
            vec![stream_head(), chunk(half(seen.tongue(), "first")), end()]
        })
        .await;
        let config = provider("ill", "compatible", &ill.url, "lost_fields = \"drop\"\n");
        let router = gateway(&config);
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(ask(&router, inbound, "ill/m", true).await.status);
        }
        assert_eq!(statuses, [200, 200, 200, 503], "{inbound:?}");
    }
}
