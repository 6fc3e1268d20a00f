//! A server that is killed, comes back empty, or takes too long: each gateway counts for itself, no
//! request waits for long, and nobody hears of it but by the log.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use govern::Rule;
use govern::limit::Limits;
use govern::limit::shared::Settings;
use hearth_tests::services::{Redis, Stop};

use super::house::{PATIENCE, admit, gateway, is_there, rates, rule, settings};

/// Asks without a pause until it is told to stop: how many were let in, and the longest wait.
async fn load(limits: Limits, stop: Arc<AtomicBool>, json: &str) -> (u64, Duration) {
    let bounds = rates(json);
    let (mut admitted, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match admit(&limits, &[rule("team:a", &bounds)], 0).await {
            Ok(_) => admitted += 1,
            Err(denied) => assert_eq!(denied.rule, Rule::RequestRate),
        }
        longest = longest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (admitted, longest)
}

async fn wait(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_keeps_the_rate_while_the_server_is_killed() {
    const RATE: u64 = 600;
    let redis = Redis::start();
    let gateways = [gateway(&settings(&redis.url())).await, gateway(&settings(&redis.url())).await];
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (limits, stop) = (gateways[task % 2].clone(), Arc::clone(&stop));
            tokio::spawn(load(limits, stop, r#"{"requests_per_minute": 600}"#))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    for _ in 0..2 {
        redis.stop(Stop::Immediate);
        wait("it is gone", || !gateways.iter().any(is_there)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.start_again();
        wait("it is back", || gateways.iter().all(is_there)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.expect("nothing but refusals by the rate").0;
    }
    let passed = u64::try_from(begun.elapsed().as_millis()).expect("seconds");
    // The server forgot all of it twice, and still: no more than each gateway alone.
    let most = 2 * (RATE + RATE * passed / 60_000 + 1);
    assert!(admitted <= most, "{admitted} of {most}");
    assert!(admitted >= RATE, "{admitted}");
}

/// Passes bytes on, after a delay.
struct Proxy {
    address: String,
    delay_ms: Arc<AtomicU64>,
}

impl Proxy {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        // They end with the test's process, or with their connection.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(("127.0.0.1", port)).expect("the server");
                let copy = |stream: &TcpStream| stream.try_clone().expect("a handle");
                let (here, there) = (copy(&near), copy(&far));
                let (asked, answered) = (Arc::default(), Arc::clone(&delay));
                std::thread::spawn(move || pass(here, there, &asked));
                std::thread::spawn(move || pass(far, near, &answered));
            }
        });
        Self { address, delay_ms }
    }

    fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("short");
        self.delay_ms.store(ms, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay_ms: &AtomicU64) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        std::thread::sleep(Duration::from_millis(delay_ms.load(Ordering::SeqCst)));
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_slow_server() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let url = format!("redis://{}", proxy.address);
    // As an operator has it, but for a machine that has other things to do.
    let patience = Duration::from_millis(200);
    let limits = gateway(&Settings { patience, ..Settings::new(&url).expect("a URL") }).await;
    wait("it is there", || is_there(&limits)).await;
    let bounds = rates(r#"{"requests_per_minute": 1000000}"#);
    let rules = [rule("team:a", &bounds)];
    proxy.delay(Duration::from_secs(1));
    let begun = Instant::now();
    // Those that are on their way wait as long as one may; all at once.
    let together = (0..50).map(|_| admit(&limits, &rules, 0));
    let all = futures_util::future::join_all(together).await;
    let waited = begun.elapsed();
    assert!(all.iter().all(Result::is_ok), "the local count says yes");
    assert!(waited >= patience && waited < patience + Duration::from_millis(500), "{waited:?}");
    assert!(!is_there(&limits));
    // From now on nobody does, though it is tried again and again in the background.
    let begun = Instant::now();
    for _ in 0..1000 {
        let asked = Instant::now();
        drop(admit(&limits, &rules, 0).await.expect("the local count says yes"));
        assert!(asked.elapsed() < patience, "{:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!is_there(&limits));
    proxy.delay(Duration::ZERO);
    wait("it is asked again when it answers", || is_there(&limits)).await;
    let all = admit(&limits, &rules, 0).await.expect("it fits");
    // The server has not seen those that were let in without it.
    let left = all.request_rate().expect("a rate").remaining;
    assert!(left > 1_000_000 - 1000, "{left}");
}

/// No server at the start: the gateway starts all the same, and finds it later.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_found() {
    let redis = Redis::start();
    redis.stop(Stop::Immediate);
    let limits = gateway(&settings(&redis.url())).await;
    assert!(!is_there(&limits));
    let bounds = rates(r#"{"requests_per_minute": 2}"#);
    let rules = [rule("team:a", &bounds)];
    drop(admit(&limits, &rules, 0).await.expect("the local count says yes"));
    redis.start_again();
    wait("it is found", || is_there(&limits)).await;
    let other = gateway(&settings(&redis.url())).await;
    for fits in [true, true, false] {
        assert_eq!(admit(&other, &rules, 0).await.is_ok(), fits);
    }
    assert!(admit(&limits, &rules, 0).await.is_err());
}
