//! Overflow: to the cloud when the local queue breaks its promise, back when that is kept again,
//! and no back and forth at the bound.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use gateway::route::{Asked, Local};
use govern::policy::Label;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::caller::{Inbound, ask, open, provider, request, routes, send, until};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::strategies::{Here, PROVIDERS};
use crate::upstream::Upstream;

const POOL: &str = "[pools.p]\ntargets = [\"org/fake\"]\n\
                    overflow = { to = [\"cloud/m\"], when = { queue = 4 } }\n";

/// A real queue before a slow engine.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_goes_to_the_cloud_and_comes_back() {
    let cloud = Upstream::well("cloud").await;
    let config = format!("{}{POOL}", provider("cloud", "compatible", &cloud.url, ""));
    let fake = Fake::start(Setup {
        endless: true,
        pace: Duration::from_millis(3),
        rows: 1,
        routes: routes(&config, &["org/fake"]).expect("a configuration"),
        ..Setup::default()
    });
    let model = fake.models.first().expect("the fake");
    let waiting = || model.engine.stats().waiting;
    // One runs, four wait.
    let mut held: Vec<JoinHandle<Response<Body>>> = Vec::new();
    for count in 0..5_usize {
        let (path, mut body) = Inbound::Chat.request("p", true, "hi");
        body["max_tokens"] = 4_000.into();
        let (router, request) = (fake.router.clone(), request("", &path, &body));
        held.push(tokio::spawn(async move { open(&router, request).await }));
        until("the queue is so long", || waiting() == count).await;
    }
    let leave = |from: usize, held: &mut Vec<JoinHandle<_>>| {
        held.drain(from..).for_each(|caller| caller.abort());
    };
    let over = ask(&fake.router, Inbound::Chat, "p", false).await;
    assert_eq!(over.route(), "cloud/m; pool=p; reason=overflow; attempt=1");
    assert!(over.text().contains("cloud"));
    // At half the bound it stays there, however long.
    leave(3, &mut held);
    until("two wait", || waiting() == 2).await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let still = ask(&fake.router, Inbound::Chat, "p", false).await;
    assert!(still.route().starts_with("cloud/m"), "{}", still.route());
    // Below half it comes back after two seconds.
    leave(1, &mut held);
    until("nobody waits", || waiting() == 0).await;
    let calm = ask(&fake.router, Inbound::Chat, "p", false).await;
    assert!(calm.route().starts_with("cloud/m"), "{}", calm.route());
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let first = held.remove(0).await.expect("no panic");
    let route = first.headers()["x-hearth-route"].to_str().expect("text").to_owned();
    assert_eq!(route, "org/fake; pool=p; reason=priority; attempt=1");
    drop(first);
    let (path, mut body) = Inbound::Chat.request("p", false, "hi");
    body["max_tokens"] = 3.into();
    let back = send(&fake.router, request("", &path, &body)).await;
    assert!(back.route().starts_with("org/fake"), "{}", back.route());
    assert_eq!(cloud.count(), 3);
}

fn here(waiting: u64, wait_ms: u64) -> Here {
    let wait = Duration::from_millis(wait_ms);
    let local = Local { context: 100_000, open: 1, waiting, wait };
    Here { locals: [("own".to_owned(), local)].into(), ..Here::default() }
}

/// A queue that moves about its bound sends requests one way, not to and fro.
#[test]
fn no_back_and_forth_at_the_bound() {
    let config = format!(
        "{PROVIDERS}[pools.p]\ntargets = [\"own\"]\noverflow = {{ to = [\"a/m\"], when = {{ queue \
         = 32 }} }}\n"
    );
    let pool = routes(&config, &["own"]).expect("a configuration").find("p").expect("the pool");
    let begun = Instant::now();
    let cloud = |ms: u64, waiting: u64| {
        let now = begun + Duration::from_millis(ms);
        pool.plan(&Asked::default(), &here(waiting, 0), now).reason == "overflow"
    };
    assert!(!cloud(0, 31));
    let mut changes = 0;
    let mut before = false;
    for step in 0..600 {
        // Between 17 and 33, as a queue does whose requests are sent away at 32.
        let now = cloud(step * 100, 17 + (step * 5) % 17);
        changes += u32::from(now != before);
        before = now;
    }
    assert_eq!((changes, before), (1, true));
    // Below half, but not for long enough; then again.
    for (ms, waiting, expect) in [
        (60_000, 15, true),
        (61_900, 0, true),
        (61_950, 16, true),
        (62_000, 15, true),
        (63_999, 15, true),
        (64_000, 15, false),
        (64_001, 31, false),
        (64_002, 32, true),
    ] {
        assert_eq!(cloud(ms, waiting), expect, "at {ms} ms with {waiting}");
    }
}

/// Each bound by itself; and an engine that is gone is as bad as a full one.
#[test]
fn every_bound_counts() {
    for (when, over, under) in [
        ("queue = 2", here(2, 0), here(0, 0)),
        ("wait_ms = 500", here(1, 500), here(1, 100)),
        ("ttft_ms = 500", here(1, 500), here(1, 100)),
        ("queue = 100, wait_ms = 500", here(1, 501), here(1, 100)),
        ("queue = 2", Here::default(), here(0, 0)),
    ] {
        let config = format!(
            "{PROVIDERS}[pools.p]\ntargets = [\"own\"]\noverflow = {{ to = [\"a/m\"], when = {{ \
             {when} }} }}\n"
        );
        let pool = routes(&config, &["own"]).expect("a configuration").find("p").expect("the pool");
        let first = |here: &Here| {
            let plan = pool.plan(&Asked::default(), here, Instant::now());
            plan.order[0].name.clone()
        };
        assert_eq!(first(&under), "own", "{when}");
        assert_eq!(first(&over), "a/m", "{when}");
    }
}

/// What is too secret for the cloud waits, however long the queue is.
#[test]
fn a_label_forbids_overflow() {
    let config = format!(
        "{PROVIDERS}[pools.p]\ntargets = [\"own\"]\noverflow = {{ to = [\"a/m\"], when = {{ queue \
         = 1 }} }}\n"
    );
    let pool = routes(&config, &["own"]).expect("a configuration").find("p").expect("the pool");
    for label in Label::ALL {
        let plan =
            pool.plan(&Asked { label, ..Asked::default() }, &here(1_000, 60_000), Instant::now());
        let names: Vec<&str> = plan.order.iter().map(|target| &*target.name).collect();
        let expect = if label <= Label::Internal { vec!["a/m", "own"] } else { vec!["own"] };
        assert_eq!(names, expect, "{label:?}");
    }
}

/// The cloud helps as far as the budget reaches: who cannot pay it waits here.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_pay_the_cloud_waits() {
    let cloud = Upstream::well("cloud").await;
    let config = format!("{}{POOL}", provider("cloud", "compatible", &cloud.url, ""));
    let house = House::new().await;
    let pace = Duration::from_millis(3);
    let fake = house.gateway(&config, Setup { endless: true, pace, rows: 1, ..Setup::default() });
    let budget = json!({ "name": "all", "scope": "everything",
        "limits": [{ "period": "total", "usd": "0.000001" }] });
    house.admin(&fake.router, "POST /budgets", &budget).await;
    let prices = json!({ "name": "one", "models": [
        { "model": "org/fake", "input": 0, "output": 0 },
        { "model": "cloud/m", "input": 9_000_000, "output": 9_000_000 }] });
    house.admin(&fake.router, "POST /prices", &prices).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let ask = |streams: bool, most: u32| {
        let (path, mut body) = Inbound::Chat.request("p", streams, "hi");
        body["max_tokens"] = most.into();
        request(&key, &path, &body)
    };
    let model = fake.models.first().expect("the fake");
    let waiting = || model.engine.stats().waiting;
    let mut held = Vec::new();
    for count in 0..5_usize {
        let (router, request) = (fake.router.clone(), ask(true, 4_000));
        held.push(tokio::spawn(async move { open(&router, request).await }));
        until("the queue is so long", || waiting() == count).await;
    }
    let (router, last) = (fake.router.clone(), ask(false, 3));
    let last = tokio::spawn(async move { send(&router, last).await });
    until("it waits here", || waiting() == 5).await;
    held.iter().for_each(JoinHandle::abort);
    let got = last.await.expect("no panic");
    assert_eq!((got.status, cloud.count()), (200, 0), "{}", got.text());
    assert_eq!(got.route(), "org/fake; pool=p; reason=overflow; attempt=2");
}
