//! Gateways on one server that does what it should: all rules or none, corrections, the server's
//! own clock, what is kept and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use govern::Rule;
use govern::entity::Key;
use govern::governor::Clock;
use govern::limit::shared::Settings;
use govern::store::documents::Edit;
use hearth_tests::services::{Redis, postgres};

use super::house::{ORGANISATION, admit, connect, gateway, is_there, kept, rates, rule, settings};
use super::house::{PATIENCE, timed};
use super::shop::{self, Folder, Shop};

#[tokio::test]
async fn all_rules_count_or_none() {
    let redis = Redis::start();
    let time = Arc::new(AtomicI64::new(1_000_000));
    let settings = timed(&redis.url(), &time);
    let (one, two) = (gateway(&settings).await, gateway(&settings).await);
    let wide = rates(r#"{"requests_per_minute": 10, "tokens_per_minute": 100, "concurrent": 2}"#);
    let narrow = rates(r#"{"requests_per_minute": 10, "tokens_per_minute": 20}"#);
    let both = [rule("org:a", &wide), rule("key:a", &narrow)];
    let first = one.admit_among(ORGANISATION, &both, 15, 0).await.expect("it fits");
    // The inner rule refuses at the other gateway, which has counted nothing itself.
    let denied = two.admit_among(ORGANISATION, &both, 6, 0).await.expect_err("5 are left");
    assert_eq!((denied.rule, denied.retry_after_s), (Rule::TokenRate, Some(3)));
    assert!(denied.message.starts_with("team research, tokens_per_minute: 6 tokens"), "{denied}");
    let second = two.admit_among(ORGANISATION, &both, 5, 0).await.expect("nothing was counted");
    let left = |rate: Option<govern::limit::Standing>| rate.map(|rate| rate.remaining);
    assert_eq!(left(second.request_rate()), Some(8));
    assert_eq!(left(second.token_rate()), Some(0));
    let outer = [rule("org:a", &wide)];
    let denied = one.admit_among(ORGANISATION, &outer, 0, 0).await.expect_err("two run");
    assert_eq!(denied.rule, Rule::Concurrency);
    drop((first, second));
    // Another organisation's rules count apart.
    let three = gateway(&settings).await;
    let elsewhere = three.admit_among("org_b", &both, 20, 0).await.expect("nobody was there");
    assert_eq!(left(elsewhere.request_rate()), Some(9));
}

/// Another rate keeps the share of the bucket that is used, as in the local table.
#[tokio::test]
async fn another_rate_keeps_the_share() {
    let redis = Redis::start();
    let time = Arc::new(AtomicI64::new(1_000_000));
    let settings = timed(&redis.url(), &time);
    let (one, two) = (gateway(&settings).await, gateway(&settings).await);
    let left = async |limits, json: &str, tokens| {
        let bounds = rates(json);
        let limits: &govern::limit::Limits = limits;
        let rules = [rule("key:a", &bounds)];
        let admitted = limits.admit_among(ORGANISATION, &rules, tokens, 0).await.expect("it fits");
        admitted.token_rate().expect("a rate").remaining
    };
    assert_eq!(left(&one, r#"{"tokens_per_minute": 1000}"#, 750).await, 250);
    assert_eq!(left(&two, r#"{"tokens_per_minute": 100}"#, 0).await, 25);
    assert_eq!(left(&one, r#"{"tokens_per_minute": 4000}"#, 0).await, 1000);
}

/// By the server's clock and real time: 2 gateways, 8 tasks each, 3 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_the_rate_and_no_more() {
    const RATE: u64 = 1200;
    let redis = Redis::start();
    let gateways = [gateway(&settings(&redis.url())).await, gateway(&settings(&redis.url())).await];
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (limits, stop) = (gateways[task % 2].clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let bounds = rates(&format!(r#"{{"requests_per_minute": {RATE}}}"#));
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    match admit(&limits, &[rule("team:a", &bounds)], 0).await {
                        Ok(_) => count += 1,
                        Err(denied) => {
                            assert_eq!(denied.rule, Rule::RequestRate);
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                }
                count
            })
        })
        .collect();
    // In the middle of it the server forgets its scripts.
    let mut server = connect(&redis.url()).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut server).await.expect("an answer");
    }
    stop.store(true, Ordering::Relaxed);
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.expect("no panic");
    }
    let passed = u64::try_from(begun.elapsed().as_millis()).expect("seconds");
    let most = RATE + RATE * passed / 60_000 + 1;
    assert!(admitted <= most, "{admitted} of {most}");
    // Each of the two alone would have let in a bucket more.
    assert!(admitted >= RATE + RATE * 2500 / 60_000, "{admitted} in {passed} ms");
    assert!(gateways.iter().all(is_there));
}

/// Counters are kept for as long as they make a difference, however often they are written.
#[tokio::test]
async fn counters_go_when_nothing_is_left_of_them() {
    let redis = Redis::start();
    let usual = Settings { hold: Duration::from_millis(400), ..settings(&redis.url()) };
    let limits = gateway(&usual).await;
    let mut server = connect(&redis.url()).await;
    let bounds =
        rates(r#"{"requests_per_minute": 600, "tokens_per_minute": 6000, "concurrent": 1}"#);
    let begun = Instant::now();
    for _ in 0..10 {
        let mut admitted = admit(&limits, &[rule("key:a", &bounds)], 10).await.expect("it fits");
        admitted.settle(5, Clock::System.micros());
        drop(admitted);
        let names = kept(&mut server).await;
        for name in names {
            let left: i64 =
                redis::cmd("PTTL").arg(&name).query_async(&mut server).await.expect("an answer");
            // Ten requests at ten a second, or the longest that a place is kept.
            assert!((0..=1001).contains(&left) || left == -2, "{name}: {left} ms");
            assert!(name.starts_with("hearth:{") && !name.contains("key:a"), "{name}");
        }
        // The place is free for the next as soon as the server has heard of the end.
        while !kept(&mut server).await.iter().all(|name| !name.ends_with(":running")) {}
    }
    while !kept(&mut server).await.is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // All at once, and nothing of what was there before counts.
    let all = rates(r#"{"requests_per_minute": 1, "tokens_per_minute": 6000}"#);
    let other = gateway(&usual).await;
    let admitted = admit(&other, &[rule("key:a", &all)], 6000).await.expect("it is empty");
    assert_eq!(admitted.token_rate().map(|rate| rate.remaining), Some(0));
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
    for url in ["", "http://a", "redis://:secret@a:99999", "redis:/a", "rediss://a/#insecure"] {
        let said = Settings::new(url).expect_err(url);
        assert!(!said.contains("secret"), "{said}");
    }
    let settings = Settings::new("redis://:secret@127.0.0.1:6379/1").expect("a URL");
    assert!(!format!("{settings:?}").contains("secret"));
    // What the documentation says.
    let times = [settings.patience, settings.renew, settings.hold].map(|time| time.as_millis());
    assert_eq!(times, [50, 5000, 30_000]);
}

/// TLS to a server that speaks none: no panic, no wait, and each gateway for itself.
#[tokio::test]
async fn a_server_without_tls_is_not_there() {
    let redis = Redis::start();
    let limits = gateway(&settings(&redis.url().replace("redis:", "rediss:"))).await;
    assert!(!is_there(&limits));
    let bounds = rates(r#"{"requests_per_minute": 1}"#);
    drop(admit(&limits, &[rule("key:a", &bounds)], 0).await.expect("the local count says yes"));
    let denied = admit(&limits, &[rule("key:a", &bounds)], 0).await.expect_err("and no");
    assert_eq!(denied.rule, Rule::RequestRate);
}

/// Two governors on one PostgreSQL and one Redis: what one lets in, the other one's headers show.
#[tokio::test(flavor = "multi_thread")]
async fn headers_show_what_all_gateways_have_let_in() {
    let (redis, database) = (Redis::start(), postgres::shared().fresh());
    let folders = ["rates-1", "rates-2"].map(Folder::new);
    let open = async |number: usize| {
        let mut own = shop::settings(&folders[number].0, Some(database.clone()), Clock::System);
        own.gateway = format!("gateway-{number}");
        own.sharing.rates = Some(settings(&redis.url()));
        Shop::open(&own, shop::price(0, 0)).await
    };
    let one = open(0).await;
    let mut key = Key::clone(one.principal.key.as_ref().expect("the shop's"));
    key.policy.rates = vec![rates(r#"{"requests_per_minute": 4}"#)];
    shop::put(&one.governor, vec![Edit::put(&key)]).await;
    let key = Arc::new(key);
    let shops = [open(1).await, one];
    let mut seen = Vec::new();
    for (number, request) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let shop = &shops[number % 2];
        let principal = shop.governor.directory().principal(&key).expect("the key");
        let ask = shop.ask(request, 1, 1);
        let operation = shop.governor.let_in(&principal, &ask).await.expect("four fit");
        let [requests, tokens] = operation.rates();
        seen.push(requests.expect("a rate").remaining);
        assert_eq!(tokens, None);
    }
    assert_eq!(seen, [3, 2, 1, 0]);
    for shop in &shops {
        let principal = shop.governor.directory().principal(&key).expect("the key");
        let denied = shop.governor.let_in(&principal, &shop.ask("e", 1, 1)).await;
        assert_eq!(denied.err().map(|denied| denied.rule), Some(Rule::RequestRate));
        assert_eq!(shop.governor.rates_are_shared(), Some(true));
    }
}
